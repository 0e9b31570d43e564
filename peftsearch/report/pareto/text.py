"""Format a front as a table for the terminal, as CSV and as JSON."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from peftsearch.design.design import UNTUNED
from peftsearch.report.pareto.axis import AXES, Axis
from peftsearch.report.pareto.front import Front, all_objectives_front
from peftsearch.report.pareto.points import Point
from peftsearch.units import plural

_FORMAT = "peftsearch-pareto/1"
_COUNTED = ("params", "changed_params")
"""Measures that always have a column, whatever the axis."""


def front_table(front: Front) -> Table:
    """Table of the front's designs, cheapest first, with marks for the knee, the smallest budget and the best."""
    level, axis = front.levels[0], front.axis
    kind = "mean ± standard deviation over seeds" if level.confirmed else "one seed"
    table = Table(title=f"Pareto front: validation {front.metric} ({kind}) against {axis.label}", title_justify="left")
    table.add_column("design", no_wrap=True)
    own = [] if axis.measure in _COUNTED else [axis.label]
    for column in ("budget", "parameters", "of budget", "changed", *own):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column(front.metric, justify="right", no_wrap=True)
    table.add_column("")
    for point in level.distinct_front:
        table.add_row(*_cells(front, point), style="bold" if point is front.smallest else None)
    if front.smallest is not None and front.smallest not in level.front:
        table.add_row(*_cells(front, front.smallest), style="bold")
    return table


def _cells(front: Front, point: Point) -> list[str]:
    axis, n_params, changed = front.axis, int(point.measures["params"]), point.measures.get("changed_params")
    marks = [
        text
        for text, marked in (
            ("knee", front.levels[0].knee),
            ("smallest within one standard error", front.smallest),
            ("best", front.best),
        )
        if point is marked
    ]
    return [
        point.design.title,
        point.budget,
        f"{n_params:,}",
        f"{100 * n_params / point.budget_params:.1f}%" if point.budget_params else "",
        f"{int(changed):,}" if changed is not None else "",
        *([] if axis.measure in _COUNTED else [axis.show(axis.cost(point))]),
        str(point.design.validation),
        ", ".join(marks),
    ]


def conclusions(front: Front) -> list[str]:
    """The conclusions from a front, one per line."""
    level, axis = front.levels[0], front.axis
    lines = []
    if front.smallest is not None:
        lines.append(_smallest_line(front, front.smallest))
    if level.knee is not None:
        lines.append(
            f"Knee ({'log scale' if axis.log else 'linear scale'} of the cost): {described(level.knee, axis)}."
        )
    else:
        lines.append("No knee: no design of the front lies above the line between its ends.")
    parts = [f"{s.name} {s.hypervolume:.4g}" for s in level.series if s.name not in UNTUNED or not axis.log]
    lines.append(
        f"Hypervolume ({front.metric} x {_hypervolume_unit(axis)}, reference point {level.reference[0]:.4f} at "
        f"{axis.show(level.reference[1])}): {', '.join(parts)}."
    )
    if front.n_nondominated is not None:
        lines.append(
            f"{plural(front.n_nondominated, 'trial')} non-dominated in all {len(front.objectives)} objectives "
            f"({', '.join(front.objectives)}), marked in pareto.csv."
        )
    return [*lines, *(f"Note: {note}" for note in front.notes)]


def _hypervolume_unit(axis: Axis) -> str:
    return f"decades of {axis.label}" if axis.log else f"{axis.unit} of {axis.label}"


def _smallest_line(front: Front, smallest: Point) -> str:
    best = "" if smallest is front.best else f"; the best is {described(front.best, front.axis)}"
    if smallest.baseline in UNTUNED:
        return f"No budget is needed: {described(smallest, front.axis)} is within one standard error of the best{best}."
    what = f"budget within one standard error of the best: {smallest.budget}"
    if not front.several_budgets:
        what = f"cost within one standard error of the best: {front.axis.show(front.axis.cost(smallest))}"
    own = ", which is the best" if smallest is front.best else best
    return f"Smallest {what} ({described(smallest, front.axis)}{own})."


def described(point: Point, axis: Axis) -> str:
    """Describe a point in one line: `lora (baseline) at 0.1%, 0.9340 ± 0.0222 (n=4), 22,278 parameters`."""
    design, n_params = point.design, int(point.measures["params"])
    text = f"{design.title} at {point.budget}, {design.validation}, {n_params:,} parameters"
    return text if axis.measure == "params" else f"{text}, {axis.show(axis.cost(point))}"


def rows_of(front: Front) -> list[dict[str, Any]]:
    """All points as flat rows, for CSV and JSON."""
    on_front = {id(p) for level in front.levels for p in level.front}
    on_own = {id(p) for level in front.levels for series in level.series[1:] for p in series.front}
    multi = len(front.objectives) > 1
    in_all = {id(p) for p in all_objectives_front(front.points, front.objectives)} if multi else set()
    return [
        {
            "study": p.study,
            "budget": p.budget,
            "budget_params": p.budget_params,
            "name": p.name,
            "kind": "baseline" if p.baseline else "search",
            "confirmed": p.confirmed,
            "score": p.score,
            "std": p.std,
            "n": len(p.scores),
            "steps": p.steps,
            **{axis.measure: p.measures.get(axis.measure) for axis in AXES.values()},
            "on_front": id(p) in on_front,
            "on_own_front": id(p) in on_own,
            **({"nondominated": id(p) in in_all} if multi else {}),
            "violations": p.violations,
            "design": p.detail,
        }
        for p in front.points
    ]


def front_csv(front: Front) -> str:
    """All points as CSV, with marks for those on the front of their fidelity and on the front of their own kind."""
    import pandas as pd

    text: str = pd.DataFrame(rows_of(front)).to_csv(index=False)
    return text


def front_json(front: Front) -> dict[str, Any]:
    """The analysis as plain values for JSON."""
    return {
        "format": _FORMAT,
        "model": front.model,
        "task": front.task,
        "metric": front.metric,
        "x": front.axis.name,
        "objectives": list(front.objectives),
        "levels": [
            {
                "confirmed": level.confirmed,
                "front": [_named(p) for p in level.front],
                "knee": _named(level.knee),
                "reference": {"score": level.reference[0], front.axis.measure: level.reference[1]},
                "hypervolume_unit": f"{front.metric} x {_hypervolume_unit(front.axis)}",
                "hypervolume": {s.name: s.hypervolume for s in level.series},
                "own_fronts": {s.name: [_named(p) for p in s.front] for s in level.series[1:]},
            }
            for level in front.levels
        ],
        "best": _named(front.best),
        "smallest_within_one_standard_error": _named(front.smallest),
        "points": rows_of(front),
        "notes": list(front.notes),
    }


def _named(point: Point | None) -> dict[str, Any] | None:
    if point is None:
        return None
    return {
        "study": point.study,
        "budget": point.budget,
        "name": point.name,
        "baseline": bool(point.baseline),
        "score": point.score,
        "std": point.std,
        "n": len(point.scores),
        "measures": dict(point.measures),
    }
