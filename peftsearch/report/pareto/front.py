"""Analyse the cost and score of one or several studies: fronts, knee, hypervolume, smallest sufficient budget.

Conclusions come from the confirmed designs. Without any, they come from single trainings, and a note says so. The front
is that of all designs of the level, including baselines. The designs of the search and each baseline also have a front
of their own, with its hypervolume against the same reference point.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from peftsearch.errors import StudyError, one_line
from peftsearch.report.pareto.arithmetic import hypervolume, knee, nondominated, reference_point, smallest_within
from peftsearch.report.pareto.axis import AXES, Axis, axis_of
from peftsearch.report.pareto.points import Point, StudyPoints
from peftsearch.searcher.verdict import standard_error
from peftsearch.tasks.own_metric import short_name
from peftsearch.units import plural

_DIRECTIONS = (True, False)
"""Whether to maximise score and cost."""
_COMPARED = {
    "model": "model",
    "revision": "revision of the model",
    "anatomy": "anatomy of the model",
    "task": "task",
    "task_fingerprint": "data of the task (fingerprint)",
    "metric": "metric",
}
"""Settings that studies of one front must share, with their names in messages."""
_FIDELITY = {
    "number of steps of the confirmation": ("strategy", "confirm", "steps"),
    "number of steps of the search": ("strategy", "search", "steps"),
    "batch size": ("training", "batch_size"),
    "length of texts in tokens": ("training", "max_length"),
}
"""Settings that must agree for scores to be comparable, with their places."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Series:
    """A set of designs and its front."""

    name: str
    """Name of the set: `all`, `search` or a baseline's name."""
    front: tuple[Point, ...]
    """The non-dominated designs of the set, cheapest first."""
    hypervolume: float
    """Hypervolume against the level's reference point, on the drawn axes; excludes zero costs on a log axis."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Level:
    """The points of one fidelity."""

    confirmed: bool
    points: tuple[Point, ...]
    """The points that have the cost measured and meet all constraints."""
    series: tuple[Series, ...]
    """The sets of designs: first `all`, then `search`, then the baselines."""
    knee: Point | None
    reference: tuple[float, float]
    """Score and cost of the reference point."""

    @property
    def front(self) -> tuple[Point, ...]:
        """The non-dominated designs among all, cheapest first."""
        return self.series[0].front

    @property
    def distinct_front(self) -> tuple[Point, ...]:
        """The front without repetitions: a baseline that needs less than two budgets is the same training at both."""
        return tuple({(p.name, p.scores, p.measures["params"]): p for p in reversed(self.front)}.values())[::-1]

    def members(self, series: str, axis: Axis) -> list[Point]:
        """The designs of a series that can be shown on the axis."""
        return [p for p in self.points if _belongs(p, series) and axis.holds(p)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Front:
    """The analysis of one or several studies."""

    axis: Axis
    metric: str
    model: str
    task: str
    points: tuple[Point, ...]
    """All points, including those that belong to no level."""
    levels: tuple[Level, ...]
    """The levels, confirmed first; conclusions come from the first."""
    best: Point
    smallest: Point | None
    """The smallest budget, then cost, within one standard error of the best; None without repeated trainings."""
    several_budgets: bool
    n_nondominated: int | None
    """Number of trials non-dominated in all objectives; None for studies with a single objective."""
    objectives: tuple[str, ...]
    notes: tuple[str, ...] = ()


def analyse(studies: Sequence[StudyPoints], x: str = "params", reference: tuple[float, float] | None = None) -> Front:
    """Make the front of comparable studies.

    Args:
        studies: One study with several objectives, or several studies with different budgets.
        x: Name of the cost.
        reference: Score and cost of the reference point; None for a tenth of the range beyond the worst values.

    Raises:
        ConfigError: No cost has this name.
        StudyError: The studies are not comparable, or no trial has the cost measured.
    """
    axis = axis_of(x)
    require_comparable(studies)
    points = tuple(p for study in studies for p in study.points)
    usable = [p for p in points if axis.measure in p.measures and not p.violations]
    if not usable:
        measured = [a.name for a in AXES.values() if any(a.measure in p.measures for p in points)]
        raise StudyError(f"--x {x}: no usable trial of these runs has it measured (measured: {', '.join(measured)})")
    grouped = [[p for p in usable if p.confirmed is confirmed] for confirmed in (True, False)]
    levels = tuple(_level(group, axis, reference) for group in grouped if group)
    n_validation = max((s.n_validation or 0 for s in studies), default=0)
    best, smallest = _best_and_smallest(levels[0], axis, n_validation)
    settings, objectives = studies[0].settings, studies[0].objectives
    return Front(
        axis=axis,
        metric=short_name(settings.metric),
        model=settings.model,
        task=settings.task,
        points=points,
        levels=levels,
        best=best,
        smallest=smallest,
        several_budgets=len(studies) > 1,
        n_nondominated=len(all_objectives_front(points, objectives)) if len(objectives) > 1 else None,
        objectives=objectives,
        notes=(*_notes(levels, points, usable, axis), *_one_objective(studies)),
    )


def require_comparable(studies: Sequence[StudyPoints]) -> None:
    """Check that studies can share a front.

    Raises:
        StudyError: The studies differ in a setting that must agree, or their budgets do not.
    """
    first = studies[0]
    for other in studies[1:]:
        for key, named in _COMPARED.items():
            _require_same(first, other, named, getattr(first.settings, key), getattr(other.settings, key))
        for named, place in _FIDELITY.items():
            here, there = (_setting(study, *place) for study in (first, other))
            if here is not None and there is not None:
                _require_same(first, other, named, here, there)
    multi = [s for s in studies if len(s.objectives) > 1]
    if multi and len(studies) > 1:
        raise StudyError(f"{multi[0].path}: a study with several objectives has its own front; give it alone")
    budgets: dict[int, StudyPoints] = {}
    for study in studies:
        same = budgets.setdefault(study.settings.budget_params, study)
        if same is not study:
            raise StudyError(f"{same.path} and {study.path} have the same budget; give runs of different budgets")


def _require_same(first: StudyPoints, other: StudyPoints, named: str, here: object, there: object) -> None:
    if here != there:
        raise StudyError(
            f"{other.path} cannot share a front with {first.path}: the {named} is {one_line(there, 80)} there "
            f"and {one_line(here, 80)} here; give runs of the same model, task and metric"
        )


def _setting(study: StudyPoints, *place: str) -> Any:
    """A nested setting; None if an old study does not store it."""
    held: Any = getattr(study.settings, place[0])
    for key in place[1:]:
        held = held.get(key) if isinstance(held, Mapping) else None
    return held


def all_objectives_front(points: Sequence[Point], objectives: Sequence[str]) -> list[Point]:
    """The trials of a study that are non-dominated in all its objectives; `score` is maximised, others minimised."""
    known = [p for p in points if len(p.objectives) == len(objectives) and not p.violations]
    mask = nondominated([p.objectives for p in known], [name == "score" for name in objectives])
    return [p for p, on in zip(known, mask, strict=True) if on]


def _level(points: Sequence[Point], axis: Axis, reference: tuple[float, float] | None) -> Level:
    placed = [p for p in points if axis.holds(p)]
    if reference is None:
        score, place = reference_point(
            [(p.score, axis.place(axis.cost(p))) for p in placed] or [(points[0].score, 0.0)], _DIRECTIONS
        )
        reference = float(score), axis.cost_at(float(place))
    names = ["all", "search", *dict.fromkeys(p.baseline for p in points if p.baseline)]
    full = [p for p in _full(points) if axis.holds(p)]
    bent = knee([axis.place(axis.cost(p)) for p in full], [p.score for p in full])
    return Level(
        confirmed=points[0].confirmed,
        points=tuple(points),
        series=tuple(_series(name, [p for p in points if _belongs(p, name)], axis, reference) for name in names),
        knee=None if bent is None else full[bent.index],
        reference=reference,
    )


def _series(name: str, points: Sequence[Point], axis: Axis, reference: tuple[float, float]) -> Series:
    mask = nondominated([(p.score, axis.cost(p)) for p in points], _DIRECTIONS)
    front = [p for p, on in zip(points, mask, strict=True) if on]
    front.sort(key=lambda p: (axis.cost(p), p.budget_params))
    placed = [(p.score, axis.place(axis.cost(p))) for p in points if axis.holds(p)]
    limit = reference[0], axis.place(reference[1])
    return Series(name=name, front=tuple(front), hypervolume=hypervolume(placed, limit, _DIRECTIONS))


def _belongs(point: Point, series: str) -> bool:
    return series == "all" or (point.baseline or "search") == series


def _best_and_smallest(level: Level, axis: Axis, n_validation: int) -> tuple[Point, Point | None]:
    """The best and the smallest point, by the rule of the verdict: designs with missing scores are neither."""
    full = _full(level.points)
    best = max(full, key=lambda p: (p.score, -axis.cost(p)))
    if len(best.scores) < 2:
        return best, None
    n = n_validation or 10**9  # if unknown, ignore the variance of rounding to whole examples
    errors = [standard_error(best.design, p.design, n) for p in full]
    costs = [(float(p.budget_params), axis.cost(p)) for p in full]
    return best, full[smallest_within(costs, [p.score for p in full], errors)]


def _full(points: Sequence[Point]) -> list[Point]:
    """Points with the full number of seeds, since a single seed of an unfinished confirmation may be luck."""
    n_seeds = max(len(p.scores) for p in points)
    return [p for p in points if len(p.scores) == n_seeds]


def _notes(levels: Sequence[Level], points: Sequence[Point], usable: Sequence[Point], axis: Axis) -> list[str]:
    notes = []
    if not levels[0].confirmed:
        notes.append("No design is confirmed: the front is of single trainings, and the best of these are partly luck.")
    elif max(len(p.scores) for p in levels[0].points) < 2:
        notes.append("One seed has no standard error: give --seeds 2 or more to find the smallest budget within it.")
    if levels[0].confirmed:
        notes += _unevenness(levels[0].points, points)
    violating = sum(bool(p.violations) for p in points)
    if violating:
        notes.append(f"On no front, since a constraint is violated: {plural(violating, 'design')}.")
    if len(points) - len(usable) - violating > 0:
        notes.append(f"{plural(len(points) - len(usable) - violating, 'design')} without a measured {axis.label}.")
    if any(not axis.holds(p) for p in usable):
        notes.append("A design that tunes nothing is drawn as a line, and excluded from knee and hypervolume.")
    return notes


def _one_objective(studies: Sequence[StudyPoints]) -> list[str]:
    """A note where nothing made the search look for cheap designs."""
    if len(studies) > 1 or len(studies[0].objectives) > 1:
        return []
    return [
        "One objective and one budget: cheap designs are here only as far as the run trained them; search for them "
        "with --objective score,params or --budgets."
    ]


def _unevenness(confirmed: Sequence[Point], points: Sequence[Point]) -> list[str]:
    """Notes on designs confirmed with fewer seeds than others, and on runs without a confirmed design."""
    few = [p for p in confirmed if p not in _full(confirmed)]
    notes = []
    if few:
        n_seeds = max(len(p.scores) for p in confirmed)
        are = "1 confirmed design has" if len(few) == 1 else f"{len(few)} confirmed designs have"
        notes.append(f"{are} fewer seeds than the {n_seeds} of others and cannot be best, smallest or knee.")
    known = {p.study for p in points if p.confirmed}
    missing = dict.fromkeys(p.study for p in points if p.study not in known)
    if missing:
        has, it_is = ("has", "it is") if len(missing) == 1 else ("have", "they are")
        notes.append(f"{', '.join(missing)} {has} no confirmed design: {it_is} not part of the conclusions.")
    return notes
