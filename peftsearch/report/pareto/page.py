"""HTML page of a front: an interactive chart, the table of its designs, and the conclusions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from peftsearch.design.design import UNTUNED
from peftsearch.report.page import PALETTE, Chart, Section, Table, Text, label, page
from peftsearch.report.pareto.axis import Axis
from peftsearch.report.pareto.front import Front, Level, Series
from peftsearch.report.pareto.png import baseline_colours, level_title
from peftsearch.report.pareto.points import Point
from peftsearch.report.pareto.text import conclusions, rows_of
from peftsearch.units import plural

_BASELINES = tuple(c for c in PALETTE if c not in {"--blue", "--grey"})
_MARKS = ("square", "triangle-up", "diamond", "triangle-down", "cross", "x", "star")


def front_page(front: Front, command: str) -> str:
    """Render the page of a front as HTML.

    Args:
        front: The analysis.
        command: The command that made the front, as the user gave it.

    Raises:
        ReportError: plotly is not installed.
    """
    first, *others = conclusions(front)
    sections = [
        Section(title="", items=[Text(text=first, kind="lead"), *(Text(text=line) for line in others)]),
        *(
            Section(title=level_title(level), items=[_chart(front, level), _table(front, level)])
            for level in front.levels
        ),
        Section(title="All designs", items=[_all(front)]),
        Section(title="How it was made", items=[Text(text=command, kind="code"), Text(text=_METHOD, kind="note")]),
    ]
    return page(f"{front.metric.capitalize()} against {front.axis.label}", sections, f"{front.model}, {front.task}")


_METHOD = (
    "A design is on the front if no other of the same fidelity is at least as good and as cheap, and better in one of "
    "the two. The knee is the design of the front farthest above the line between its ends, with both axes scaled to "
    "the front (Das, 1999); counts and sizes are on a log scale. The smallest budget within one standard error of the "
    "best follows Breiman et al. (1984): the error combines that of the best mean over seeds and that of the "
    "difference over validation examples. Bars are standard deviations over seeds."
)


def _chart(front: Front, level: Level) -> Chart:
    axis = front.axis
    colours = baseline_colours(front)
    traces: list[dict[str, Any]] = []
    shapes: list[dict[str, Any]] = []
    for series in level.series[1:]:
        if series.name in UNTUNED and axis.log:
            shapes += [_head_line(p) for p in series.front[-1:]]
            continue
        traces += _series(front, level, series, colours)
    traces.append(_stairs(axis, level.front, "front of all designs", "--ink", 2.5))
    for point, text, mark in _marked(front, level):
        traces.append(_ring(axis, point, text, mark))
    return Chart(
        figure={
            "data": traces,
            "layout": {
                "xaxis": {"title": {"text": axis.title}, **_scale(axis, level)},
                "yaxis": {"title": {"text": label(f"validation {front.metric}")}},
                "shapes": shapes,
                "hovermode": "closest",
            },
        },
        description=f"{front.metric} against {axis.label}; {level_title(level)}",
        caption=_caption(front, level, bool(shapes)),
        height=480,
    )


def _scale(axis: Axis, level: Level) -> dict[str, Any]:
    """Scale of the cost axis; a log axis has ticks at 1, 2 and 5 of each decade."""
    if not axis.log:
        return {"type": "linear"}
    shown = [axis.shown(p) for p in level.points if axis.holds(p)] or [1.0]
    decades = range(math.floor(math.log10(min(shown))), math.ceil(math.log10(max(shown))) + 1)
    ticks = [step * 10.0**decade for decade in decades for step in (1, 2, 5)]
    return {"type": "log", "tickvals": ticks, "ticktext": [f"{tick:,.6g}" for tick in ticks]}


def _caption(front: Front, level: Level, has_head: bool) -> str:
    parts = ["Hover to see a design. Solid steps: the front of all designs; dashed steps: each baseline's own front."]
    if level.confirmed:
        parts.append("Bars are the standard deviation over seeds.")
    if has_head:
        parts.append("The dotted line is the score without any method.")
    return " ".join(parts)


def _series(front: Front, level: Level, series: Series, colours: dict[str, int]) -> list[dict[str, Any]]:
    axis, own = front.axis, series.name == "search"
    members = level.members(series.name, axis)
    if not members:
        return []
    i = colours.get(series.name, 0)
    colour = "--blue" if own else "--grey" if series.name in UNTUNED else _BASELINES[i % len(_BASELINES)]
    name = "designs of the search" if own else series.name
    trace: dict[str, Any] = {
        "type": "scatter",
        "mode": "markers",
        "name": label(name),
        "x": [axis.shown(p) for p in members],
        "y": [p.score for p in members],
        "customdata": [_hover(p, axis) for p in members],
        "hovertemplate": "%{customdata}<extra></extra>",
        "marker": {
            "color": colour,
            "symbol": "circle" if own else _MARKS[i % len(_MARKS)],
            "size": 10 if level.confirmed else 7,
            "opacity": 0.55 if own and not level.confirmed else 1,
        },
    }
    if level.confirmed:
        trace["error_y"] = {"array": [p.std for p in members], "color": colour, "thickness": 1.2, "width": 4}
    stairs = _stairs(axis, series.front, name, colour, 1.4, dash="solid" if own else "dash")
    return [trace, {**stairs, "showlegend": False}]


def _stairs(
    axis: Axis, points: Sequence[Point], name: str, colour: str, width: float, dash: str = "solid"
) -> dict[str, Any]:
    points = [p for p in points if axis.holds(p)]
    return {
        "type": "scatter",
        "mode": "lines",
        "name": label(name),
        "x": [axis.shown(p) for p in points],
        "y": [p.score for p in points],
        "line": {"color": colour, "width": width, "shape": "hv", "dash": dash},
        "hoverinfo": "skip",
    }


def _ring(axis: Axis, point: Point, name: str, mark: str) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": [axis.shown(point)],
        "y": [point.score],
        "marker": {"color": "--ink", "symbol": mark, "size": 20, "line": {"color": "--ink", "width": 1.5}},
        "hoverinfo": "skip",
    }


def _marked(front: Front, level: Level) -> list[tuple[Point, str, str]]:
    marked = [(level.knee, "knee", "circle-open")]
    if level is front.levels[0]:
        marked.append((front.smallest, "smallest within one standard error", "square-open"))
    return [(p, text, mark) for p, text, mark in marked if p is not None and front.axis.holds(p)]


def _head_line(point: Point) -> dict[str, Any]:
    return {
        "type": "line",
        "xref": "paper",
        "x0": 0,
        "x1": 1,
        "y0": point.score,
        "y1": point.score,
        "line": {"color": "--grey", "width": 1.5, "dash": "dot"},
        "label": {"text": "no method", "textposition": "end", "font": {"color": "--muted"}},
    }


def _hover(point: Point, axis: Axis) -> str:
    lines = [
        f"<b>{label(point.design.title)}</b> at {label(point.budget)}",
        str(point.design.validation),
        f"{int(point.measures['params']):,} parameters",
        *([] if axis.measure == "params" else [f"{axis.label} {axis.show(point.measures[axis.measure])}"]),
        label(point.detail),
    ]
    return "<br>".join(lines)


def _table(front: Front, level: Level) -> Table:
    axis = front.axis
    own = axis.measure != "params"
    columns = ["design", "budget", "parameters", *([axis.title] if own else []), "score", "std", "n", "description"]
    rows = [
        [
            p.design.title,
            p.budget,
            int(p.measures["params"]),
            *([axis.shown(p)] if own else []),
            p.score,
            p.std,
            len(p.scores),
            p.detail,
        ]
        for p in level.distinct_front
    ]
    strong = frozenset(i for i, p in enumerate(level.distinct_front) if p is front.smallest)
    return Table(columns=columns, rows=rows, caption="The front, cheapest first.", strong=strong)


def _all(front: Front) -> Table:
    rows = rows_of(front)
    columns = [c for c in rows[0] if any(row[c] not in (None, "") for row in rows)]
    cells = [[_cell(row[c]) for c in columns] for row in rows]
    return Table(
        columns=[c.replace("_", " ") for c in columns], rows=cells, caption=plural(len(rows), "design"), folded=True
    )


def _cell(value: Any) -> Any:
    return ("yes" if value else "") if isinstance(value, bool) else value
