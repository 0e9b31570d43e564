"""The confirmed designs and the baselines side by side: rows of scores, and the table that a terminal shows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import mean, stdev
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from peftsearch.design.references import Reference
from peftsearch.design.text import design_line
from peftsearch.searcher.finalists import Finalist, not_interrupted
from peftsearch.study.trials import INTERRUPTED, KIND, score_of


@dataclass(frozen=True, kw_only=True, slots=True)
class Scores:
    """Scores of one design over seeds."""

    values: tuple[float, ...]

    def to_dict(self) -> dict[str, Any] | None:
        """Mean, standard deviation (None below two), n and the values; None without values."""
        if not self.values:
            return None
        return {
            "mean": mean(self.values),
            "std": stdev(self.values) if len(self.values) > 1 else None,
            "n": len(self.values),
            "values": list(self.values),
        }

    @property
    def short(self) -> str:
        """Mean and standard deviation; empty without values."""
        if not self.values:
            return ""
        spread = f" ± {stdev(self.values):.4f}" if len(self.values) > 1 else ""
        return f"{mean(self.values):.4f}{spread}"

    def __str__(self) -> str:
        return f"{self.short} (n={len(self.values)})" if self.values else ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One line of the result table."""

    name: str
    baseline: bool
    detail: str
    """The design in one line, or why there is no score."""
    n_params: int | None
    n_changed: int | None
    """Parameters in which the result differs from the model, added ones included; None where nobody counted them."""
    share: float | None
    """Share of the budget that is used."""
    search_score: float | None
    """Score at the search's fidelity; one seed."""
    validation: Scores
    test: Scores
    tasks: Mapping[str, Scores] = field(default_factory=dict)
    """Validation scores of each task, where there are several."""
    reference: bool = False
    """Whether it trains the model's own weights, outside the budget, and is never chosen."""


def make_rows(
    search: optuna.Study,
    finalists: Sequence[Finalist],
    confirmed_trials: Mapping[str, Mapping[int, FrozenTrial]],
    tests: Mapping[str, Scores],
    budget: int,
) -> tuple[Row, ...]:
    """Confirmed designs first, best mean on top; then the other baselines by their search score.

    Args:
        search: The study of the search.
        finalists: The confirmed designs.
        confirmed_trials: Their trainings, by name and seed.
        tests: Test scores of those that were read.
        budget: Trainable parameters of the study's budget.
    """
    trials = [t for t in search.get_trials(deepcopy=False) if not t.user_attrs.get(INTERRUPTED)]
    by_name = {t.user_attrs.get("name"): t for t in trials}
    rows = []
    for f in finalists:
        rows.append(
            Row(
                name=f.name,
                baseline=f.baseline,
                detail=design_line(f.design),
                n_params=f.architecture.n_params,
                n_changed=_n_changed(by_name[f.name]),
                share=f.architecture.n_params / budget,
                search_score=score_of(by_name[f.name]),
                validation=Scores(values=tuple(map(score_of, confirmed_trials[f.name].values()))),
                test=tests.get(f.name, Scores(values=())),
                tasks=_task_scores(confirmed_trials[f.name].values()),
            )
        )
    rows.sort(key=lambda r: -(mean(r.validation.values) if r.validation.values else float("-inf")))
    confirmed = {f.name for f in finalists}
    others = [t for name, t in by_name.items() if t.user_attrs.get(KIND) == "baseline" and name not in confirmed]
    others.sort(key=lambda t: -(score_of(t) if t.state == TrialState.COMPLETE else float("-inf")))
    return (*rows, *map(_unconfirmed, others))


def reference_rows(confirm: optuna.Study, references: Sequence[Reference]) -> tuple[Row, ...]:
    """The references in their order.

    Args:
        confirm: The study of the confirmation.
        references: Of the study.
    """
    rows = []
    for reference in references:
        own = [t for t in not_interrupted(confirm) if t.user_attrs.get("name") == reference.name]
        done = [t for t in own if t.state == TrialState.COMPLETE]
        reasons = [str(t.user_attrs["reason"]) for t in own if "reason" in t.user_attrs]
        rows.append(
            Row(
                name=reference.name,
                baseline=False,
                detail=reference.detail if done else next(iter(reasons), ""),
                n_params=reference.n_params,
                n_changed=reference.n_params,
                share=None,
                search_score=None,
                validation=Scores(values=tuple(map(score_of, done))),
                test=Scores(values=tuple(t.user_attrs["test_score"] for t in done if "test_score" in t.user_attrs)),
                tasks=_task_scores(done),
                reference=True,
            )
        )
    return tuple(rows)


def _task_scores(trials: Iterable[FrozenTrial]) -> dict[str, Scores]:
    """Scores of each task over the seeds; empty where there is but one."""
    stated = [t.user_attrs["task_scores"] for t in trials if "task_scores" in t.user_attrs]
    return {task: Scores(values=tuple(s[task] for s in stated)) for task in (stated[0] if stated else ())}


def _n_changed(trial: FrozenTrial) -> int | None:
    """What was counted when the trial was measured."""
    counted = trial.user_attrs.get("measures", {}).get("changed_params")
    return None if counted is None else int(counted)


def _unconfirmed(trial: FrozenTrial) -> Row:
    done = trial.state == TrialState.COMPLETE
    return Row(
        name=str(trial.user_attrs.get("name")),
        baseline=True,
        detail="" if done else str(trial.user_attrs.get("reason", trial.state.name.lower())),
        n_params=trial.user_attrs.get("n_params"),
        n_changed=_n_changed(trial),
        share=trial.user_attrs.get("share"),
        search_score=score_of(trial) if done else None,
        validation=Scores(values=()),
        test=Scores(values=()),
    )
