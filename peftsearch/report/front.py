"""Charts of the score against each cost, with the Pareto front of both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from peftsearch.report.course import points
from peftsearch.report.page import Chart, Choice, Item, Section, Text, label
from peftsearch.report.pareto.arithmetic import nondominated
from peftsearch.study.objectives import OBJECTIVES
from peftsearch.study.record import Record
from peftsearch.study.trial_record import TrialRecord
from peftsearch.units import plural

TITLES = {o.measure: f"{o.label} ({o.unit})" if o.unit else o.label for o in OBJECTIVES.values()}
"""Axis titles by measure, with the measure's own unit."""
_LOG_FROM = 20.0
"""Ratio of largest to smallest value above which an axis is logarithmic."""


def front(record: Record) -> Section:
    """Section with the front of the score against each measure."""
    names = list(dict.fromkeys(name for t in record.scored for name in t.measures))
    charts = {TITLES.get(name, name): _chart(record, name) for name in names}
    items: list[Item] = [Choice(label="Score against", charts=charts)] if charts else []
    if not charts:
        items.append(Text(text="No trial has a score and a measure yet.", kind="note"))
    if len(record.objectives) > 1:
        items.insert(0, Text(text=f"The search optimised {', '.join(record.objectives)} together."))
    return Section(title="Score against cost", items=items)


def non_dominated(trials: Sequence[TrialRecord], measure: str) -> list[TrialRecord]:
    """Trials that no other trial beats in score and measure, cheapest first; the earliest of equal ones."""
    if not trials:
        return []
    mask = nondominated([[t.score or 0.0, t.measures[measure]] for t in trials], maximise=(True, False))
    kept = sorted((t for t, on in zip(trials, mask, strict=True) if on), key=lambda t: (t.measures[measure], t.number))
    return list({(t.score, t.measures[measure]): t for t in reversed(kept)}.values())[::-1]


def _chart(record: Record, measure: str) -> Chart:
    own = [t for t in record.scored if measure in t.measures]
    untuned = [t for t in own if t.measures[measure] == 0 < max(t.measures[measure] for t in own)]
    own = [t for t in own if t not in untuned]  # the head-only baseline would stretch the axis to zero
    x_of = {t.number: t.measures[measure] for t in own}
    best = non_dominated(own, measure)
    outside = [t for t in record.search if t.score is not None and t.violations and measure in t.measures]
    groups = [
        ("found by the search", "--blue", "circle", [t for t in own if not t.is_baseline]),
        ("baseline", "--orange", "square", [t for t in own if t.is_baseline]),
        ("violates a constraint", "--grey", "x", outside),
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
    apart = f" Without this measurement: {plural(missing, 'trial')}." if missing else ""
    apart += "".join(f" Not drawn: {t.name}, at 0 with a score of {t.score:.4f}." for t in untuned)
    scale = " The axis is logarithmic." if logarithmic else ""
    return Chart(
        figure={"data": data, "layout": layout},
        description=f"Score against {TITLES.get(measure, measure)} with the Pareto front",
        caption=f"The line joins the {plural(len(best), 'design')} that no other beats in both score and this measure; "
        f"scores come from the search's short trainings, one seed each.{scale}{apart}",
        height=420,
    )
