"""Records of the stages of the S4 procedure: the scores of each choice, and the choice that is kept."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import mean, stdev
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from peftsearch.design.space import Choice, Dimension
from peftsearch.study.trials import slot_of
from peftsearch.units import mean_and_spread


@dataclass(frozen=True, kw_only=True, slots=True)
class ChoiceRecord:
    """The trials of one choice in a stage."""

    choice: Choice
    scores: tuple[float, ...]
    """Scores of the completed trials."""
    n_failed: int = 0
    """Number of failed or pruned trials."""
    fits: bool = True
    """Whether any completion of the choice fits the budget."""
    drawn: bool = True
    """Whether the stage tries the choice; with few trials it tries only some."""

    @property
    def mean(self) -> float | None:
        """Mean score; None without a score."""
        return mean(self.scores) if self.scores else None

    @property
    def standard_error(self) -> float | None:
        """Standard error of the mean; None below two scores."""
        return stdev(self.scores) / sqrt(len(self.scores)) if len(self.scores) > 1 else None


@dataclass(frozen=True, kw_only=True, slots=True)
class StageRecord:
    """One stage: the choices and, once the stage is closed, the decision."""

    name: str
    choices: tuple[ChoiceRecord, ...]
    chosen: Choice | None = None
    """The choice that is kept; None while the stage is open."""
    why: str = "best mean"
    """`best mean`, or the reason why nothing was compared."""

    def to_dict(self) -> dict[str, Any]:
        """Mean, standard error and n of every choice, as the study and `best.yaml` keep them."""
        choices = [
            {
                "choice": c.choice,
                "mean": c.mean,
                "standard_error": c.standard_error,
                "n": len(c.scores),
                "failed": c.n_failed,
                "fits": c.fits,
                "tried": c.drawn,
            }
            for c in self.choices
        ]
        return {"stage": self.name, "chosen": self.chosen, "why": self.why, "choices": choices}


def record(
    dimension: Dimension, tried: Collection[Choice], fitting: Collection[Choice], trials: Sequence[FrozenTrial]
) -> StageRecord:
    """Record the trials of a stage by choice."""
    records = []
    for choice in dimension.choices:
        own = [t for t in trials if (slot := slot_of(t)) is not None and slot.choice == choice]
        scores = tuple(float(t.value) for t in own if t.state == TrialState.COMPLETE and t.value is not None)
        failed = sum(t.state in (TrialState.FAIL, TrialState.PRUNED) for t in own)
        records.append(
            ChoiceRecord(choice=choice, scores=scores, n_failed=failed, fits=choice in fitting, drawn=choice in tried)
        )
    return StageRecord(name=dimension.name, choices=tuple(records))


def unopposed(dimension: Dimension, fitting: Sequence[Choice]) -> StageRecord:
    """A stage without a comparison, since at most one of its choices fits the budget."""
    choices = tuple(ChoiceRecord(choice=c, scores=(), fits=c in fitting, drawn=False) for c in dimension.choices)
    why = "the only choice that fits" if fitting else "no choice fits"
    return StageRecord(name=dimension.name, choices=choices, chosen=(fitting or dimension.choices)[0], why=why)


def best(record: StageRecord) -> Choice:
    """The choice with the best mean among those with the fewest failed trials; ties go to the one named first."""
    drawn = [c for c in record.choices if c.drawn]
    scored = [c for c in drawn if c.mean is not None]
    if not scored:
        return drawn[0].choice
    fewest = min(c.n_failed for c in scored)
    return max((c for c in scored if c.n_failed == fewest), key=lambda c: c.mean or 0.0).choice


def stage_line(stage: Mapping[str, Any]) -> str:
    """A closed stage in one line."""
    tried = [c for c in stage["choices"] if c["n"]]
    scores = ", ".join(
        f"{c['choice']} {mean_and_spread(c['mean'], c['standard_error'])}"
        for c in sorted(tried, key=lambda c: -c["mean"])
    )
    if not tried:
        return f"{stage['stage']}: {stage['why']}"
    least, most = min(c["n"] for c in tried), max(c["n"] for c in tried)
    n = f" (n={most} each: {scores})" if least == most else f" (n={least} to {most}: {scores})"
    return f"{stage['stage']}: {stage['chosen']}, {stage['why']}{n}"
