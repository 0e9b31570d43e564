"""`peftsearch evaluate`: the metric of a finished training on a split."""

from __future__ import annotations

import json as json_text
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from peftsearch.trainer.folder import read_training
from peftsearch.trainer.options import EvaluateOptions


def evaluate(
    folder: Path, /, options: Annotated[EvaluateOptions | None, Parameter(name="*")] = None, *, json: bool = False
) -> int:
    """Score what `peftsearch train` has trained.

    Args:
        folder: The --output of `peftsearch train`.
        options: What to score it on, and how to load it.
        json: Print JSON.
    """
    read_training(folder)  # a training that is not there is refused before anything heavy is imported
    from peftsearch.trainer import evaluation
    from peftsearch.trainer.results import as_told

    found = evaluation.evaluate(replace(options or EvaluateOptions(), folder=folder))
    scores = as_told(found.scores) if "log_likelihood" in found.scores else dict(found.scores)
    if json:
        facts: dict[str, object] = {"metric": found.metric, "score": found.score, "n": found.n, "data": found.data}
        facts |= {} if found.n_prompts is None else {"n_prompts": found.n_prompts, "scores": scores}
        print(json_text.dumps(facts, ensure_ascii=False))
        return 0
    size = f"{found.n} examples" if found.n_prompts is None else f"{found.n_prompts} prompts, {found.n} references"
    for name, value in scores.items():
        print(f"{name} on {found.data} ({size}): {value:.4f}")
    return 0
