"""`peftsearch train`: train every seed, write the folder and print the scores."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from peftsearch.errors import PeftSearchError
from peftsearch.trainer.options import TrainOptions
from peftsearch.trainer.run import run_training
from peftsearch.units import Scores, plural


def train(best: Path | None = None, /, *, options: Annotated[TrainOptions, Parameter(name="*")]) -> int:
    """Train the architecture that a run found, or a reference method, in full.

    Args:
        best: best.yaml of a run, or its folder.
        options: How to train, and where to write the result.

    Returns:
        0, or 1 if a training diverged; the others are scored and saved regardless.
    """
    options = replace(options, best=best)
    is_first = os.environ.get("RANK", "0") == "0"
    try:
        return _train(options, is_first)
    except PeftSearchError:
        if is_first:
            raise
        return 2  # the first process prints the error
    except KeyboardInterrupt:
        if is_first:
            print("peftsearch: interrupted; --resume continues from the last evaluation", file=sys.stderr)
        return 130


def _train(options: TrainOptions, is_first: bool) -> int:
    say = partial(print, flush=True) if is_first else _nothing
    metrics = run_training(options, say, is_first=is_first)
    diverged = [seed for seed in metrics["seeds"] if seed["state"] == "diverged"]
    for split in ("validation", "test"):
        if metrics[split] is not None:
            say(f"{metrics['metric']} on {split}: {Scores.from_dict(metrics[split])}")
    if metrics.get("texts") is not None:
        for line in text_lines(metrics["texts"]):
            say(line)
    if metrics["seed"] is not None:
        say(f"Folder: {options.output} (weights of seed {metrics['seed']})")
    if diverged and is_first:
        told = ", ".join(f"seed {seed['seed']}: {seed['reason']}" for seed in diverged)
        print(
            f"peftsearch: {len(diverged)} of {plural(len(metrics['seeds']), 'training')} diverged ({told}); "
            "a lower --learning-rate may help",
            file=sys.stderr,
        )
    return 1 if diverged else 0


def text_lines(texts: Mapping[str, Any]) -> Iterator[str]:
    """Lines with the metrics of generated texts, and one that names the metrics that are not installed."""
    from peftsearch.tasks.text_metrics import PACKAGES

    for name in ("perplexity", *PACKAGES):
        if texts.get(name) is not None:
            yield f"{name} on {texts['split']}, {plural(texts['n_prompts'], 'prompt')}: {Scores.from_dict(texts[name])}"
    left = [name for name in PACKAGES if name not in texts and texts.get("perplexity") is not None]
    if left:
        yield f"left out: {', '.join(left)}; pip install 'peftsearch[generation]'"


def _nothing(line: str) -> None:
    """Print nothing, in processes other than the first."""
