"""`peftsearch compare`: hold the picks of finished runs against each other."""

from __future__ import annotations

from itertools import combinations
from math import sqrt
from pathlib import Path
from typing import Any

from peftsearch.errors import ConfigError
from peftsearch.study.best import Best, read_best
from peftsearch.tasks.own_metric import short_name
from peftsearch.units import Scores


def compare(*runs: Path, json: bool = False) -> int:
    """Compare the picks of finished runs: budget, parameters, scores, and their differences.

    Args:
        runs: Folders of runs, two or more.
        json: Print JSON.
    """
    if len(runs) < 2:
        raise ConfigError("compare needs two runs or more, such as runs/A runs/B")
    found = [(run, read_best(run)[1]) for run in runs]
    from peftsearch.cli.terminal import print_rows, terminal

    rows = [_row(run, best) for run, best in found]
    differences = [_difference(one, other) for one, other in combinations(found, 2)]
    if json:
        import json as json_text

        plain = [row | {"score": row["score"].to_dict()} for row in rows]
        print(json_text.dumps({"runs": plain, "differences": differences}, ensure_ascii=False))
        return 0
    print_rows([row | {"score": str(row["score"])} for row in rows], as_json=False)
    for difference in differences:
        terminal().print(_words(difference), highlight=False, markup=False, soft_wrap=True)
    return 0


def _scores(best: Best) -> Scores:
    return Scores.from_dict(best.scores.test or best.scores.validation)


def _row(run: Path, best: Best) -> dict[str, Any]:
    return {
        "run": str(run),
        "task": best.task.name,
        "model": best.model.name,
        "budget": best.budget.text,
        "verdict": best.verdict.kind,
        "pick": best.name,
        "parameters": best.budget.used,
        "metric": short_name(best.task.metric),
        "score": _scores(best),
        "steps": best.steps,
        "seed": best.seed,
    }


def _difference(one: tuple[Path, Best], other: tuple[Path, Best]) -> dict[str, Any]:
    """The difference between the means of two picks; without numbers where their examples differ."""
    (here, a), (there, b) = one, other
    facts: dict[str, Any] = {"run": str(here), "other": str(there)}
    same = a.task.fingerprint == b.task.fingerprint and a.task.metric == b.task.metric
    x, y = _scores(a), _scores(b)
    if not same or not x.values or not y.values:
        return facts | {"difference": None, "standard_error": None}
    parts = [(scores.std, len(scores.values)) for scores in (x, y)]
    error = None if any(std is None for std, _ in parts) else sqrt(sum((std or 0.0) ** 2 / n for std, n in parts))
    return facts | {"difference": x.mean - y.mean, "standard_error": error}


def _words(difference: dict[str, Any]) -> str:
    pair = f"{difference['run']} minus {difference['other']}"
    if difference["difference"] is None:
        return f"{pair}: other data or another metric, so the scores cannot be compared"
    error = difference["standard_error"]
    return f"{pair}: {difference['difference']:+.4f}" + ("" if error is None else f" ± {error:.4f} (standard error)")
