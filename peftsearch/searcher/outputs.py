"""The files that a study ends in: `best.yaml` and `trials.csv`."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import metadata
from math import exp
from statistics import mean
from typing import Any

from optuna.trial import TrialState

from peftsearch.design.shares import n_changed
from peftsearch.design.text import labelled
from peftsearch.files import plain
from peftsearch.searcher.comparison import Row
from peftsearch.searcher.finalists import Finalist
from peftsearch.searcher.prepare import Setup
from peftsearch.searcher.verdict import Verdict
from peftsearch.study.folder import StudyFolder
from peftsearch.study.objectives import MEASURES
from peftsearch.study.trials import INTERRUPTED, KIND, STAGE, score_of
from peftsearch.tasks.suite import Suite
from peftsearch.tasks.task import Task

BEST = "best.yaml"
_PACKAGES = ("peftsearch", "torch", "transformers", "datasets", "optuna", "accelerate")


def make_best(
    setup: Setup, folder: StudyFolder, finalists: Sequence[Finalist], verdict: Verdict, rows: tuple[Row, ...]
) -> dict[str, Any]:
    """The content of `best.yaml`: the pick, and the other confirmed designs by name for who wants one of them."""
    from peftsearch.backbone.device import hardware

    pick = next(f for f in finalists if f.name == verdict.pick.name)
    row = next(r for r in rows if r.name == pick.name)
    trained = {r.name: bool(r.validation.values) for r in rows}
    backbone, suite = setup.backbone, setup.suite
    return {
        "format": "peftsearch-best/1",
        "verdict": {
            "kind": verdict.kind,
            "statement": verdict.statement,
            "settle": verdict.settle,
            "p_value": verdict.p_value,
            "tied": [c.name for c in verdict.tied],
        },
        "name": pick.name,
        "model": {
            "name": backbone.name,
            "revision": backbone.revision,
            "model_type": backbone.model_type,
            "n_params": backbone.n_params,
            "quantize": setup.options.quantize,
            "stacks": {stack.name: len(stack.blocks) for stack in backbone.stacks},
        },
        "task": _task(suite.tasks[0]) if len(suite.tasks) == 1 else _suite(suite),
        "budget": {
            "text": setup.budget.text,
            "n_params": setup.budget.n_params,
            "used": pick.architecture.n_params,
            "share_used": pick.architecture.n_params / setup.budget.n_params,
            "changed": n_changed(pick.architecture, backbone),
            "count_head": setup.options.count_head,
        },
        "design": plain(pick.design.to_dict()),
        "architecture": labelled(pick.architecture, backbone),
        "training": {
            **plain(asdict(setup.training)),
            "learning_rate": _learning_rate(setup, pick),
            "steps": setup.strategy.confirm.steps,
            "dtype": setup.settings["autocast"],
        },
        "scores": {
            "validation": row.validation.to_dict(),
            "test": row.test.to_dict(),
            "search": row.search_score,
        }
        | _frozen(folder)
        | _perplexity(suite.metric, row),
        "comparison": [_comparison(r) for r in rows],
        "confirmed": {
            f.name: {
                "design": plain(f.design.to_dict()),
                "architecture": labelled(f.architecture, backbone),
                "learning_rate": _learning_rate(setup, f),
            }
            for f in finalists
            if f is not pick and trained[f.name]
        },
        "stages": folder.search.user_attrs.get("stages", []),
        "seed": setup.options.seed,
        "space": setup.space.name,
        "strategy": setup.strategy.name,
        "study": str(folder.path),
        "hardware": hardware(),
        "versions": {"python": platform.python_version()} | {p: _version(p) for p in _PACKAGES},
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _learning_rate(setup: Setup, finalist: Finalist) -> float:
    return finalist.design.learning_rate or setup.training.learning_rate


def _frozen(folder: StudyFolder) -> dict[str, float]:
    """What a generation is held against."""
    kept = folder.confirm.user_attrs.get("frozen")
    return {} if kept is None else {"frozen_model": kept["score"]}


def _perplexity(metric: str, row: Row) -> dict[str, Any]:
    """Perplexities of the mean scores, where the score is their logarithm."""
    if metric != "log_likelihood":
        return {}
    splits = {"validation": row.validation.values, "test": row.test.values}
    return {"perplexity": {split: exp(-mean(values)) if values else None for split, values in splits.items()}}


def _task(task: Task) -> dict[str, Any]:
    return {
        "name": task.name,
        "kind": task.kind,
        "source": task.source,
        "fingerprint": task.fingerprint,
        "labels": list(task.labels),
        "metric": task.metric,
        "majority_score": None if task.kind == "generation" else task.majority_score,
        "n_train": len(task.train),
        "n_validation": len(task.validation),
        "n_test": len(task.test) if task.test else 0,
    }


def _suite(suite: Suite) -> dict[str, Any]:
    """Several tasks: what they have together, and each of them."""
    return {
        "name": suite.name,
        "kind": suite.kind,
        "source": suite.source,
        "fingerprint": suite.fingerprint,
        "metric": suite.metric,
        "majority_score": suite.majority_score,
        "n_train": suite.n_train,
        "n_validation": suite.n_validation,
        "n_test": suite.n_test,
        "tasks": [_task(task) for task in suite.tasks],
    }


def _comparison(row: Row) -> dict[str, Any]:
    return {
        "name": row.name,
        "baseline": row.baseline,
        "reference": row.reference,
        "detail": row.detail,
        "n_params": row.n_params,
        "n_changed": row.n_changed,
        "share": row.share,
        "search_score": row.search_score,
        "validation": row.validation.to_dict(),
        "test": row.test.to_dict(),
    } | ({"tasks": {name: scores.to_dict() for name, scores in row.tasks.items()}} if row.tasks else {})


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


_COLUMNS = (
    "study", "number", "kind", "name", "stage", "state", "score", "n_params", "share", "steps", "seed",
    "learning_rate", "loss", "train_s", "wall_s", *(m for m in MEASURES if m != "params"), "reused_from", "reason",
    "design",
)  # fmt: skip  # one line a row of the file's header


def trials_csv(folder: StudyFolder) -> str:
    """All trials of both studies, one a line."""
    import pandas as pd

    rows = []
    for study, name in ((folder.search, "search"), (folder.confirm, "confirm")):
        for t in study.get_trials(deepcopy=False):
            facts = t.user_attrs | t.user_attrs.get("measures", {})
            if t.user_attrs.get(INTERRUPTED):
                facts["reason"] = "interrupted"
            own = {
                "study": name,
                "number": t.number,
                "kind": facts.get(KIND, name),
                "stage": t.system_attrs.get(STAGE),
                "state": t.state.name.lower(),
                "score": score_of(t) if t.state == TrialState.COMPLETE else None,
                "design": None if facts.get(KIND) == "reference" else json.dumps(facts.get("design")),
            }
            rows.append({**facts, **own})
    text: str = pd.DataFrame(rows, columns=list(_COLUMNS)).convert_dtypes().to_csv(index=False)
    return text
