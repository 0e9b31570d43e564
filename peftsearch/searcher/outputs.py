"""Result files of a study: `best.yaml` and `trials.csv`."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import metadata
from math import exp
from statistics import fmean, pstdev

from peftsearch.design.shares import n_changed
from peftsearch.design.text import labelled
from peftsearch.exporter.formats import exports_of
from peftsearch.files import plain
from peftsearch.searcher.headroom import headroom_of
from peftsearch.searcher.patience import ended_early
from peftsearch.searcher.prepare import Setup
from peftsearch.searcher.verdict import Verdict
from peftsearch.study.best import (
    Best,
    StoredBudget,
    StoredDesign,
    StoredModel,
    StoredRow,
    StoredScores,
    StoredVerdict,
)
from peftsearch.study.confirmed import Confirmed
from peftsearch.study.folder import StudyFolder
from peftsearch.study.notes import frozen_of, stages_of
from peftsearch.study.objectives import MEASURES
from peftsearch.study.stored_task import StoredTask
from peftsearch.study.trial_record import TrialRecord
from peftsearch.study.trials import Kind, State
from peftsearch.tasks.encoding.encoded import EncodedTask
from peftsearch.tasks.encoding.pairs import EncodedPairs
from peftsearch.tasks.suite import Suite
from peftsearch.tasks.task import Task

_PACKAGES = ("peftsearch", "torch", "transformers", "datasets", "optuna", "accelerate")


def make_best(
    setup: Setup, folder: StudyFolder, finalists: Sequence[Confirmed], verdict: Verdict, rows: Sequence[Confirmed]
) -> Best:
    """The content of `best.yaml`: the pick, and the other confirmed designs by name.

    Args:
        setup: The settings of the study.
        folder: The study.
        finalists: The confirmed designs.
        verdict: The verdict on the confirmed designs.
        rows: All rows of the result, with their scores.
    """
    from peftsearch.backbone.device import hardware

    pick = next(f for f in finalists if f.name == verdict.pick.name)
    row = next(r for r in rows if r.name == pick.name)
    trained = {r.name for r in rows if r.validation.values}
    chosen = _stored_design(setup, pick)
    backbone, suite = setup.backbone, setup.suite
    frozen = frozen_of(folder.confirm)
    return Best(
        verdict=StoredVerdict(
            kind=verdict.kind,
            statement=verdict.statement,
            settle=verdict.settle,
            extend=verdict.extend,
            p_value=verdict.p_value,
            small=None if verdict.small is None else verdict.small.name,
            tied=tuple(c.name for c in verdict.tied),
        ),
        name=pick.name,
        model=StoredModel.of(backbone, setup.options.quantize),
        task=_task(suite, setup.encoded),
        budget=StoredBudget(
            text=setup.budget.text,
            n_params=setup.budget.n_params,
            used=pick.size,
            share_used=pick.size / setup.budget.n_params,
            changed=None if pick.architecture is None else n_changed(pick.architecture, backbone),
            count_head=setup.options.count_head,
        ),
        design=chosen.design,
        architecture=chosen.architecture,
        training={
            **plain(asdict(setup.training)),
            "learning_rate": chosen.learning_rate,
            "steps": setup.lengths.confirm,
            "dtype": setup.settings.autocast,
        },
        scores=StoredScores(
            validation=row.validation.to_dict(),
            test=row.test.to_dict(),
            search=row.search_score,
            frozen_model=None if frozen is None else frozen.score,
            perplexity=_perplexity(suite.metric, row),
        ),
        comparison=tuple(map(_row, rows)),
        confirmed={f.name: _stored_design(setup, f) for f in finalists if f is not pick and f.name in trained},
        ended_early=ended_early(folder.search.get_trials(deepcopy=False), setup),
        headroom="" if (found := headroom_of(folder, setup)) is None else found.text,
        stages=tuple(stages_of(folder.search)),
        seed=setup.options.seed,
        space=setup.space.name,
        strategy=setup.strategy.name,
        study=str(folder.path),
        hardware=hardware(),
        versions={"python": platform.python_version()} | {p: _version(p) for p in _PACKAGES},
        made=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _stored_design(setup: Setup, finalist: Confirmed) -> StoredDesign:
    assert finalist.design is not None, "a finalist has its design"
    assert finalist.architecture is not None, "a finalist has its sizes"
    return StoredDesign(
        design=plain(finalist.design.to_dict()),
        architecture=labelled(finalist.architecture, setup.backbone),
        learning_rate=finalist.design.learning_rate or setup.training.learning_rate,
    )


def _perplexity(metric: str, row: Confirmed) -> dict[str, float | None] | None:
    """Perplexity of the mean score by split; None unless the metric is the log-likelihood."""
    if metric != "log_likelihood":
        return None
    splits = {"validation": row.validation, "test": row.test}
    return {split: exp(-scores.mean) if scores.values else None for split, scores in splits.items()}


def _task(suite: Suite, encoded: Sequence[EncodedTask]) -> StoredTask:
    """The facts of a task; of several their common facts, and the facts of each."""
    tasks, train = suite.tasks, encoded[0].train
    return StoredTask(
        name=suite.name,
        kind=suite.kind,
        source=suite.source,
        fingerprint=suite.fingerprint,
        labels=tuple(tasks[0].labels) if len(tasks) == 1 else (),
        metric=suite.metric,
        majority_score=None if suite.kind == "generation" else suite.majority_score,
        n_train=suite.n_train,
        n_validation=suite.n_validation,
        n_test=suite.n_test,
        pairs=suite.kind != "generation" and tasks[0].train.pairs is not None,
        images=tasks[0].has_images,
        template=tasks[0].template,
        max_new=train.max_new if isinstance(train, EncodedPairs) else None,
        notes=(*suite.notes, *(note for data in encoded for note in data.notes)),
        **_target(tasks[0]),
        tasks=tuple(_task(Suite(tasks=(t,)), (e,)) for t, e in zip(tasks, encoded, strict=True))
        if len(tasks) > 1
        else (),
    )


def _target(task: Task) -> dict[str, float]:
    """Mean and standard deviation of the targets of a regression."""
    if task.kind != "regression":
        return {}
    return {"mean": fmean(task.train.labels), "scale": pstdev(task.train.labels)}


def _row(row: Confirmed) -> StoredRow:
    return row.row(None if row.architecture is None else exports_of(row.architecture))


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


_COLUMNS = (
    "study", "number", "kind", "name", "stage", "state", "score", "loss", "test_score", "test_loss", "n_params",
    "share", "rung", "first", "steps", "seed", "learning_rate", "collapsed", "train_loss", "train_s", "wall_s",
    *(m for m in MEASURES if m != "params"), "reused_from", "reason", "design",
)  # fmt: skip


def trials_csv(folder: StudyFolder) -> str:
    """All trials of both studies as CSV, one per line."""
    import pandas as pd

    rows = []
    for study, kind in ((folder.search, Kind.SEARCH), (folder.confirm, Kind.CONFIRM)):
        for trial in study.get_trials(deepcopy=False):
            t = TrialRecord.of(trial, kind)
            interrupted = t.state == State.INTERRUPTED
            own = {
                "study": str(kind),
                "number": t.number,
                "kind": str(t.kind),
                "stage": t.stage or None,
                "state": str(trial.state.name).lower(),
                "score": t.score,
                "design": None if t.kind == Kind.REFERENCE else json.dumps(t.facts.design),
                "reason": "interrupted" if interrupted else t.facts.reason,
            }
            rows.append({**t.facts.attributes(), **(t.facts.measures or {}), **own})
    text: str = pd.DataFrame(rows, columns=list(_COLUMNS)).convert_dtypes().to_csv(index=False)
    return text
