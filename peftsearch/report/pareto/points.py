"""Read the designs of studies as points with a score and all measured costs, without changing anything.

The point of a confirmed design is the mean over its seeds; the point of a trial of the search, or of a baseline's first
training, is one seed at a lower fidelity. The two are never mixed, because their trainings differ in length.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean

from peftsearch.errors import StudyError
from peftsearch.study.confirmed import Confirmed
from peftsearch.study.record import Record, read_record
from peftsearch.study.settings import StudySettings
from peftsearch.study.trial_record import TrialRecord
from peftsearch.study.trials import Kind, State
from peftsearch.units import Scores


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """A design with its score and its costs."""

    study: str
    """Name of the study's folder."""
    budget: str
    """The study's budget as the user wrote it."""
    budget_params: int
    """The study's budget in trainable parameters."""
    design: Confirmed
    """The design, with the validation score of each seed."""
    baseline: str
    """Name of the baseline; empty for designs of the search."""
    confirmed: bool
    """Whether the score is a mean over seeds at full fidelity."""
    steps: int
    """Optimizer steps of each training."""
    measures: Mapping[str, float] = field(default_factory=dict)
    """Costs by the name of the measure (`params`, `latency_s`, ...); means over seeds."""
    objectives: tuple[float, ...] = ()
    """Values in the order of the study's objectives; empty for a single objective."""
    violations: str = ""
    """Constraints that the design violates, in words; such designs are on no front."""

    @property
    def name(self) -> str:
        """Baseline's name, or `trial 17`."""
        return self.design.name

    @property
    def detail(self) -> str:
        """The design in one line."""
        return self.design.detail

    @property
    def scores(self) -> tuple[float, ...]:
        """Validation score of each seed."""
        return self.design.validation.values

    @property
    def score(self) -> float:
        """Mean over seeds."""
        return self.design.mean

    @property
    def std(self) -> float | None:
        """Standard deviation over seeds (n - 1); None below two."""
        return self.design.validation.std


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyPoints:
    """All points of one study."""

    path: Path
    settings: StudySettings
    points: tuple[Point, ...]
    n_validation: int | None
    """Number of validation examples; None if the study does not store it."""

    @property
    def objectives(self) -> tuple[str, ...]:
        """Names of the study's objectives; only `score` for studies with a single one."""
        return self.settings.objectives


def read_points(path: Path, storage: str = "") -> StudyPoints:
    """Read the points of a study.

    Args:
        path: Folder of the study.
        storage: Storage URL of the study; empty for SQLite in the folder.

    Raises:
        StudyError: The study does not exist, cannot be read, or has no trial with a score.
    """
    record = read_record(path, storage)
    done = [t for t in (*record.search, *record.confirm) if t.state == State.COMPLETE and t.score is not None]
    search = [t for t in done if t.kind in (Kind.SEARCH, Kind.BASELINE, Kind.PROMOTED)]
    groups: dict[str, list[TrialRecord]] = {}
    for trial in done:
        if trial.kind == Kind.CONFIRM:  # references have no budget, so they do not belong on a front
            groups.setdefault(trial.name, []).append(trial)
    designs = {design.name: design for design in record.confirmed()}
    points = [_point(record, group, designs[name], confirmed=True) for name, group in groups.items()]
    points += [_point(record, [trial], _short(trial), confirmed=False) for trial in search]
    if not points:
        raise StudyError(f"{path}: no trial has a score yet; `peftsearch run` with its settings continues it")
    n_hits = max((len(p.design.validation_hits) for p in points), default=0)
    stated = None if record.best is None else record.best.task.n_validation
    return StudyPoints(path=path, settings=record.settings, points=tuple(points), n_validation=n_hits or stated or None)


def _short(trial: TrialRecord) -> Confirmed:
    """The design of a single training of the search."""
    return Confirmed(
        name=trial.name,
        baseline=trial.is_baseline,
        detail=trial.detail,
        n_params=trial.facts.n_params,
        validation=Scores(() if trial.score is None else (trial.score,)),
    )


def _point(record: Record, trials: Sequence[TrialRecord], design: Confirmed, confirmed: bool) -> Point:
    """The point of one training, or of a confirmed design over its seeds."""
    first, settings = trials[0], record.settings
    several = len(settings.objectives) > 1 and not confirmed
    return Point(
        study=record.path.name,
        budget=settings.budget,
        budget_params=settings.budget_params,
        design=design,
        baseline=(first.facts.family or first.name) if design.baseline else "",
        confirmed=confirmed,
        steps=first.facts.steps or 0,
        measures=_means([t.measures for t in trials]),
        objectives=first.values if several else (),
        violations="; ".join(dict.fromkeys(v for t in trials for v in t.violations)),
    )


def _means(measured: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Mean over the trainings of each measure that all of them have; parameters are the same in all."""
    return {
        key: value if key == "params" else mean(m[key] for m in measured)
        for key, value in measured[0].items()
        if all(math.isfinite(m.get(key, math.nan)) for m in measured)
    }
