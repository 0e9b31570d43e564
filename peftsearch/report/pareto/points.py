"""The designs of studies as points: a score and all measured costs, read from the storage; nothing is changed.

A confirmed design is a point of the mean over its seeds; a trial of the search or a baseline's first training is a
point of one seed at a lower fidelity. The two are never mixed, as their scores are of different trainings.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean

from peftsearch.errors import StudyError
from peftsearch.study.confirmed import Confirmed
from peftsearch.study.hits import hits_of
from peftsearch.study.record import Record, read_record
from peftsearch.study.settings import StudySettings
from peftsearch.study.trials import Kind, State, TrialRecord
from peftsearch.units import Scores


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """A design with its score and its costs."""

    study: str
    """Name of the study's folder."""
    budget: str
    """The study's budget as the user wrote it."""
    budget_params: int
    """The same in trainable parameters."""
    design: Confirmed
    """The design, with the validation score of each seed."""
    baseline: str
    """Baseline's name; empty for designs of the search."""
    confirmed: bool
    """Whether the score is a mean over seeds at full fidelity."""
    steps: int
    """Optimizer steps of each training."""
    measures: Mapping[str, float] = field(default_factory=dict)
    """Costs by the name of the measure (`params`, `latency_s`, ...); means over seeds."""
    objectives: tuple[float, ...] = ()
    """Values in the order of the study's objectives; empty where there is but one."""
    violations: str = ""
    """Which constraints the design violates; such designs are on no front."""

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
    """Validation examples; None where the study does not say."""

    @property
    def objectives(self) -> tuple[str, ...]:
        """What the study searches for; `score` alone for studies of one objective."""
        return self.settings.objectives


def read_points(path: Path, storage: str = "") -> StudyPoints:
    """Read a study.

    Args:
        path: Its folder.
        storage: Its storage URL, where it is not the folder's own SQLite.

    Raises:
        StudyError: There is none, or it cannot be read, or no trial of it has a score.
    """
    record = read_record(path, storage)
    done = [t for t in (*record.search, *record.confirm) if t.state == State.COMPLETE and t.score is not None]
    search = [t for t in done if t.kind in (Kind.SEARCH, Kind.BASELINE)]
    groups: dict[str, list[TrialRecord]] = {}
    for trial in done:
        if trial.kind == Kind.CONFIRM:  # references keep to no budget, and belong on no front
            groups.setdefault(trial.name, []).append(trial)
    points = [_point(record, group, confirmed=True) for group in groups.values()]
    points += [_point(record, [trial], confirmed=False) for trial in search]
    if not points:
        raise StudyError(f"{path}: no trial has a score yet; `peftsearch run` with its settings goes on with it")
    n_hits = max((len(p.design.hits) for p in points), default=0)
    stated = None if record.best is None else record.best.task.n_validation
    return StudyPoints(path=path, settings=record.settings, points=tuple(points), n_validation=n_hits or stated or None)


def _point(record: Record, trials: Sequence[TrialRecord], confirmed: bool) -> Point:
    """The point of one training, or of a confirmed design over its seeds."""
    first, settings = trials[0], record.settings
    is_baseline = not first.name.startswith("trial ") if confirmed else first.kind == Kind.BASELINE
    several = len(settings.objectives) > 1 and not confirmed
    return Point(
        study=record.path.name,
        budget=settings.budget,
        budget_params=settings.budget_params,
        design=Confirmed(
            name=first.name,
            baseline=is_baseline,
            detail=first.detail,
            n_params=first.facts.n_params,
            validation=Scores(tuple(t.score for t in trials if t.score is not None)),
            hits=hits_of([t.facts.right or "" for t in trials]) if confirmed else (),
        ),
        baseline=(first.facts.family or first.name) if is_baseline else "",
        confirmed=confirmed,
        steps=first.facts.steps or 0,
        measures=_means([t.measures for t in trials]),
        objectives=first.values if several else (),
        violations="; ".join(dict.fromkeys(v for t in trials for v in t.violations)),
    )


def _means(measured: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Means over the trainings of the measures that all of them have; parameters are the same in all."""
    return {
        key: value if key == "params" else mean(m[key] for m in measured)
        for key, value in measured[0].items()
        if all(math.isfinite(m.get(key, math.nan)) for m in measured)
    }
