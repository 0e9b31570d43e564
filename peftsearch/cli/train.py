"""`peftsearch train`: train every seed, write the folder and print the scores."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from peftsearch.errors import PeftSearchError
from peftsearch.trainer.folder import check_output, claimed, is_finished, read_metrics
from peftsearch.trainer.options import TrainOptions, check_train_options
from peftsearch.trainer.source import read_run
from peftsearch.units import Scores, plural

if TYPE_CHECKING:
    from peftsearch.trainer.plan import Plan


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
    check_train_options(options)
    if is_first:
        check_output(options.output, options.overwrite, options.resume)
    # Before anything heavy is imported, so that a missing run is refused at once.
    run = None if options.best is None else read_run(options.best, options.design)
    from peftsearch.trainer.plan import prepare
    from peftsearch.trainer.results import train_all

    plan = prepare(options, run)
    say = partial(print, flush=True) if is_first else _nothing
    for line in _heading(plan):
        say(line)
    claim = claimed(options.output, plan.record, overwrite=options.overwrite, resume=options.resume)
    with claim if is_first else nullcontext():
        plan.processes.wait()  # until the folder exists
        metrics = read_metrics(options.output) if is_finished(options.output) else train_all(plan, options.output, say)
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


def _heading(plan: Plan) -> Iterator[str]:
    record = plan.record
    model = record.model
    seeds = plural(len(plan.seeds), "seed")
    share = f"{100 * record.n_params / record.model.n_params:.3g}%"
    head = f" and a head of {model.n_head:,}" if model.n_head else ""
    packed = "" if model.quantize is None else f" in {model.quantize}"
    yield (
        f"{record.method}: {record.n_params:,} trainable parameters ({share}; {record.n_changed:,} "
        f"changed){head} on {model.name}{packed}, {plan.task.name} ({plural(len(plan.task.train), 'example')})"
    )
    yield (
        f"{plural(plan.n_steps, 'step')} of {plan.training.batch_size}, rate {plan.training.learning_rate:g}, "
        f"evaluated every {plan.eval_every}, {seeds}, {record.training.dtype}, "
        f"{plan.processes.n} process{'es' if plan.processes.n > 1 else ''} on {plan.processes.device}"
    )
    yield from plan.notes


def _nothing(line: str) -> None:
    """Print nothing, in processes other than the first."""
