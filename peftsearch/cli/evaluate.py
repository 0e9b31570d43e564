"""`peftsearch evaluate`: score a finished training on a split."""

from __future__ import annotations

import json as json_text
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from peftsearch.trainer.folder import read_training
from peftsearch.trainer.options import EvaluateOptions
from peftsearch.units import plural


def evaluate(
    folder: Path, /, options: Annotated[EvaluateOptions | None, Parameter(name="*")] = None, *, json: bool = False
) -> int:
    """Score a model trained by `peftsearch train`.

    Args:
        folder: The --output of `peftsearch train`.
        options: The data to score on, and how to load the model.
        json: Print JSON.
    """
    read_training(folder)  # refuses a missing training before anything heavy is imported
    from peftsearch.trainer import evaluation
    from peftsearch.trainer.results import as_told

    found = evaluation.evaluate(replace(options or EvaluateOptions(), folder=folder))
    scores = as_told(found.scores) if "log_likelihood" in found.scores else dict(found.scores)
    if json:
        facts: dict[str, object] = {"metric": found.metric, "score": found.score, "n": found.n, "data": found.data}
        facts |= {} if found.n_prompts is None else {"n_prompts": found.n_prompts, "scores": scores}
        print(json_text.dumps(facts, ensure_ascii=False))
        return 0
    size = plural(found.n, "example")
    if found.n_prompts is not None:
        size = f"{plural(found.n_prompts, 'prompt')}, {plural(found.n, 'reference')}"
    for name, value in scores.items():
        print(f"{name} on {found.data} ({size}): {value:.4f}")
    return 0
