"""A stored trial in the form that reports and tables read it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from peftsearch.design.design import Design
from peftsearch.design.text import design_line
from peftsearch.errors import ConfigError, one_line
from peftsearch.study.trials import Kind, State, TrialFacts, facts_of, stage_of

_STATES = {
    TrialState.COMPLETE: State.COMPLETE,
    TrialState.PRUNED: State.PRUNED,
    TrialState.FAIL: State.FAILED,
    TrialState.RUNNING: State.RUNNING,
    TrialState.WAITING: State.WAITING,
}

_MOST = 1e100
"""A bound of all numbers of a trial, far above what is measured and far below an overflow."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialRecord:
    """One stored trial, as reports and tables read it."""

    number: int
    """Optuna's number, in its own study."""
    name: str
    kind: Kind
    state: State
    stage: str
    """Stage of a staged search; empty without stages."""
    score: float | None
    """Validation score; None unless complete."""
    values: tuple[float, ...]
    """Values of the objectives; empty unless complete."""
    params: Mapping[str, Any]
    """Choices of the space's dimensions, excluding those of untuned groups, which have no effect."""
    facts: TrialFacts
    distributions: Mapping[str, BaseDistribution] = field(default_factory=dict)
    """The dimensions in Optuna's form."""

    @classmethod
    def of(cls, trial: FrozenTrial, study: Kind, objectives: Sequence[str] = ("score",)) -> TrialRecord:
        """Read a stored trial.

        Args:
            trial: The trial, as Optuna stores it.
            study: `Kind.SEARCH` or `Kind.CONFIRM`, depending on the trial's study.
            objectives: Names of the trial's values.
        """
        facts = facts_of(trial)
        _require_numbers(trial, facts)
        state = (
            State.INTERRUPTED if facts.interrupted else State.INFEASIBLE if facts.infeasible else _STATES[trial.state]
        )
        complete = trial.state == TrialState.COMPLETE
        return cls(
            number=trial.number,
            name=str(facts.name or facts.baseline or f"number {trial.number}"),
            kind=study if facts.kind is None else Kind(facts.kind),
            state=state,
            stage=stage_of(trial),
            score=_score(trial, facts, objectives) if complete else None,
            values=tuple(trial.values or ()) if complete else (),
            params=_meaningful(trial.params),
            facts=facts,
            distributions=trial.distributions,
        )

    @property
    def is_baseline(self) -> bool:
        """Whether this trains a baseline, up to any rung."""
        return self.kind == Kind.BASELINE or bool(self.facts.baseline_too)

    @property
    def detail(self) -> str:
        """The design in one line; empty without one."""
        design = self.facts.design
        if not isinstance(design, Mapping):
            return ""
        try:
            return design_line(Design.from_dict(design))
        except (ConfigError, IndexError):
            return one_line(dict(design))  # written by another version: shown as stored

    @property
    def measures(self) -> dict[str, float]:
        """Measured costs that are numbers: `params`, `step_s`, ..."""
        measured = {"params": self.facts.n_params} | dict(self.facts.measures or {})
        return {str(k): float(v) for k, v in measured.items() if isinstance(v, (int, float)) and v == v}

    @property
    def n_changed(self) -> int | None:
        """Number of parameters in which the tuned model differs from the pretrained one; None if not counted."""
        counted = (self.facts.measures or {}).get("changed_params")
        return None if counted is None else int(counted)

    @property
    def violations(self) -> tuple[str, ...]:
        """Limits that the design exceeds."""
        return tuple(map(str, self.facts.violations or ()))

    @property
    def reason(self) -> str:
        """Reason why there is no score."""
        killed = "a killed process left it" if self.state == State.INTERRUPTED else ""
        return str(self.facts.reason or "") or killed


def _require_numbers(trial: FrozenTrial, facts: TrialFacts) -> None:
    """Refuse facts that no search writes.

    Raises:
        ValueError: What should be a number is none, or is beyond all that is measured.
    """
    for name in ("score", "loss", "test_score", "test_loss", "n_params", "n_head", "steps", "learning_rate"):
        value = getattr(facts, name)
        if value is not None and not ((isinstance(value, int | float) and abs(value) < _MOST) or value != value):
            raise ValueError(f"trial {trial.number}: {name} is {value!r}")


def _score(trial: FrozenTrial, facts: TrialFacts, objectives: Sequence[str]) -> float | None:
    stated, values = facts.score, trial.values or []
    if stated is None and len(values) == 1 and facts.loss is None:
        stated = values[0]
    if stated is None and "score" in objectives and len(values) == len(objectives):
        stated = values[list(objectives).index("score")]
    return float(stated) if stated is not None and stated == stated else None


def _meaningful(params: Mapping[str, Any]) -> dict[str, Any]:
    tuned = params.get("tunable")
    if tuned is None:
        return dict(params)
    groups = str(tuned).split("+")
    return {k: v for k, v in params.items() if not k.startswith("methods.") or k.removeprefix("methods.") in groups}
