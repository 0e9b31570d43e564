"""Score against parameters and every other measure, with the designs that no other beats in both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from peftsearch.report.course import points
from peftsearch.report.page import Chart, Choice, Item, Section, Text, label
from peftsearch.report.pareto.arithmetic import nondominated
from peftsearch.study.objectives import OBJECTIVES
from peftsearch.study.record import Record
from peftsearch.study.trials import Kind, TrialRecord

TITLES = {o.measure: f"{o.label} ({o.unit})" if o.unit else o.label for o in OBJECTIVES.values()}
"""Titles of axes by measure, in the measure's own unit."""
_LOG_FROM = 20.0
"""Largest over smallest value from which an axis is logarithmic."""


def front(record: Record) -> Section:
    """The fronts of the score against each measure."""
    names = list(dict.fromkeys(name for t in record.scored for name in t.measures))
    charts = {TITLES.get(name, name): _chart(record, name) for name in names}
    items: list[Item] = [Choice(label="Score against", charts=charts)] if charts else []
    if not charts:
        items.append(Text(text="No trial has a score and a measure yet.", kind="note"))
    if len(record.objectives) > 1:
        items.insert(0, Text(text=f"The search optimised {', '.join(record.objectives)} together."))
    return Section(title="What a better score costs", items=items)


def non_dominated(trials: Sequence[TrialRecord], measure: str) -> list[TrialRecord]:
    """Trials that no other beats in score and measure, cheapest first; of equals the earliest."""
    if not trials:
        return []
    mask = nondominated([[t.score or 0.0, t.measures[measure]] for t in trials], maximise=(True, False))
    kept = sorted((t for t, on in zip(trials, mask, strict=True) if on), key=lambda t: (t.measures[measure], t.number))
    return list({(t.score, t.measures[measure]): t for t in reversed(kept)}.values())[::-1]


def _chart(record: Record, measure: str) -> Chart:
    own = [t for t in record.scored if measure in t.measures]
    untuned = [t for t in own if t.measures[measure] == 0 < max(t.measures[measure] for t in own)]
    own = [t for t in own if t not in untuned]  # the head alone would stretch the axis to zero
    x_of = {t.number: t.measures[measure] for t in own}
    best = non_dominated(own, measure)
    outside = [t for t in record.search if t.score is not None and t.violations and measure in t.measures]
    groups = [
        ("found by the search", "--blue", "circle", [t for t in own if t.kind != Kind.BASELINE]),
        ("baseline", "--orange", "square", [t for t in own if t.kind == Kind.BASELINE]),
        ("breaks a constraint", "--grey", "x", outside),
    ]
    every_x = x_of | {t.number: t.measures[measure] for t in outside}
    line = {
        "type": "scatter", "mode": "lines", "name": "Pareto front", "hoverinfo": "skip",
        "x": [x_of[t.number] for t in best], "y": [t.score for t in best],
        "line": {"shape": "hv", "color": "--green", "width": 2},
    }  # fmt: skip
    data = [line, *(points(name, c, s, ts, every_x) for name, c, s, ts in groups if ts)]
    least, most = min(x_of.values()), max(x_of.values())
    logarithmic = least > 0 and most / least > _LOG_FROM
    axis: dict[str, Any] = {"title": {"text": label(TITLES.get(measure, measure))}}
    layout = {
        "xaxis": axis | ({"type": "log"} if logarithmic else {}),
        "yaxis": {"title": {"text": label(record.metric)}},
    }
    missing = sum(measure not in t.measures for t in record.scored)
    apart = f" {missing} trials have no such measurement." if missing else ""
    apart += "".join(f" Not drawn: {t.name} with 0 and a score of {t.score:.4f}." for t in untuned)
    scale = " The axis is logarithmic." if logarithmic else ""
    return Chart(
        figure={"data": data, "layout": layout},
        description=f"Score against {TITLES.get(measure, measure)} with the Pareto front",
        caption=f"The line joins the {len(best)} designs that no other beats both in score and in this measure; scores "
        f"are those of the search's short trainings, one seed each.{scale}{apart}",
        height=420,
    )
