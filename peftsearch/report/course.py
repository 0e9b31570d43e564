"""The course of a search: the decisions of its stages, and the score against trials and time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

from peftsearch.report.page import Chart, Grid, Item, Section, Text, label
from peftsearch.study.record import Record
from peftsearch.study.trial_record import TrialRecord
from peftsearch.study.trials import State
from peftsearch.units import mean_and_spread, plural


def stages(record: Record) -> Section | None:
    """Section with the decision of each stage of a staged sampler; None for samplers without stages."""
    if not record.stages:
        return None
    tried = [s for s in record.stages if any(c.get("n") for c in s.get("choices", ()))]
    untried = [s for s in record.stages if s not in tried]
    items: list[Item] = [
        Text(
            text="The sampler decided the dimensions of the design one after the other, each by the mean score of its "
            "choices. Bars are standard errors of the mean; a choice tried once has none, and differences within the "
            "bars are not evidence.",
        ),
        Grid(items=[_stage(s, record.metric) for s in tried]),
    ]
    if untried:
        lines = "; ".join(f"{s.get('stage')}: {s.get('chosen')} ({s.get('why')})" for s in untried)
        items.append(Text(text=f"Not compared: {lines}.", kind="note"))
    return Section(title="Decisions of the stages", items=items)


def _stage(stage: Mapping[str, Any], metric: str) -> Chart:
    tried = sorted((c for c in stage["choices"] if c.get("n")), key=lambda c: -c["mean"])
    n_left = sum(not c.get("tried", True) for c in stage["choices"])
    unfit = sum(not c.get("fits", True) for c in stage["choices"])
    n_failed = sum(c.get("failed", 0) for c in stage["choices"])
    names = [str(c["choice"]) for c in tried]
    text = [f"{label(c['choice'])}<br>{mean_and_spread(c['mean'], c['standard_error'])}, n = {c['n']}" for c in tried]
    chosen = [c["choice"] == stage["chosen"] for c in tried]
    trace = {
        "type": "scatter", "mode": "markers", "showlegend": False,
        "x": [c["mean"] for c in tried], "y": list(range(len(tried))),
        "error_x": {"type": "data", "array": [c["standard_error"] or 0.0 for c in tried], "thickness": 1.5, "width": 4,
                    "color": "--muted"},
        "marker": {"color": ["--blue" if is_it else "--grey" for is_it in chosen], "size": 10,
                   "symbol": ["circle" if is_it else "circle-open" for is_it in chosen]},
        "hovertext": text, "hoverinfo": "text",
    }  # fmt: skip
    notes = [f"{n_left} not tried"] * bool(n_left) + [f"{unfit} not fitting the budget"] * bool(unfit)
    notes += [f"{plural(n_failed, 'trial')} failed"] * bool(n_failed)
    counts = sorted({c["n"] for c in tried})
    n = f"n = {counts[0]} each" if len(counts) == 1 else f"n = {counts[0]} to {counts[-1]}"
    return Chart(
        figure={
            "data": [trace],
            "layout": {
                "xaxis": {"title": {"text": f"mean {label(metric)}"}, "nticks": 5},
                "yaxis": {
                    "tickvals": list(range(len(tried))), "ticktext": [label(x) for x in names],
                    "range": [len(tried) - 0.4, -0.6], "zeroline": False, "fixedrange": True,
                },
            },
        },
        title=f"{stage['stage']}: {stage['chosen']}",
        description=f"Mean score of the choices of the stage {stage['stage']}",
        caption="; ".join([str(stage.get("why", "")), n, *notes]) + ".",
        height=90 + 26 * len(tried),
    )  # fmt: skip


def course(record: Record) -> Section:
    """Section with the score against trials and against training time, and the best score so far."""
    if not record.scored:
        return Section(title="The course of the search", items=[Text(text="No trial has a score yet.", kind="note")])
    numbers = {t.number: float(t.number) for t in record.search}
    seconds = dict(zip(numbers, accumulate(float(t.facts.train_s or 0.0) for t in record.search), strict=True))
    unscored = len([t for t in record.search if t.score is None])
    apart = f" Not shown: {plural(unscored, 'trial')} without a score." if unscored else ""
    untimed = sum(t.state in {State.FAILED, State.PRUNED} and t.facts.train_s is None for t in record.search)
    missing = f" Counted as zero: {plural(untimed, 'failed or stopped training')} without a time." if untimed else ""
    return Section(
        title="The course of the search",
        items=[
            Grid(
                items=[
                    Chart(
                        figure=_course(record, numbers, "trial"),
                        description="Score of each trial in order, and the best so far",
                        caption=f"Baselines come first.{apart}",
                        height=360,
                    ),
                    Chart(
                        figure=_course(record, seconds, "seconds of training, all trials together"),
                        description="Score against seconds of training, and the best so far",
                        caption=f"Time spent in training only, excluding loading, scoring and other work.{missing}",
                        height=360,
                    ),
                ]
            )
        ],
    )


def _course(record: Record, x_of: Mapping[int, float], axis: str) -> dict[str, Any]:
    groups = [
        ("found by the search", "--blue", "circle", [t for t in record.scored if not t.is_baseline]),
        ("baseline", "--orange", "square", [t for t in record.scored if t.is_baseline]),
        ("violates a constraint", "--grey", "x", [t for t in record.search if t.score is not None and t.violations]),
    ]
    data = [points(name, colour, symbol, own, x_of) for name, colour, symbol, own in groups if own]
    best = list(accumulate((t.score or 0.0 for t in record.scored), max))
    line = {
        "type": "scatter", "mode": "lines", "name": "best so far", "hoverinfo": "y",
        "x": [x_of[t.number] for t in record.scored], "y": best, "line": {"shape": "hv", "color": "--red", "width": 2},
    }  # fmt: skip
    layout = {"xaxis": {"title": {"text": axis}}, "yaxis": {"title": {"text": label(record.metric)}}}
    return {"data": [*data, line], "layout": layout}


def points(
    name: str, colour: str, symbol: str, trials: Sequence[TrialRecord], x_of: Mapping[int, float]
) -> dict[str, Any]:
    """Make a plotly trace of trials that shows the design on hover."""
    return {
        "type": "scatter", "mode": "markers", "name": name,
        "x": [x_of[t.number] for t in trials], "y": [t.score for t in trials],
        "marker": {"color": colour, "symbol": symbol, "size": 7, "opacity": 0.8},
        "hovertext": [hover(t) for t in trials], "hoverinfo": "text",
    }  # fmt: skip


def hover(trial: TrialRecord) -> str:
    """Hover text of a trial: name, score, parameters, stage and design."""
    design = label(trial.detail).replace(" | ", "<br>  ").replace(": G1", "<br>  G1")
    n_params = trial.facts.n_params
    size = "" if n_params is None else f"<br>{n_params:,} parameters"
    stage = f"<br>stage {label(trial.stage)}" if trial.stage else ""
    return f"<b>{label(trial.name)}</b>: {trial.score:.4f}{size}{stage}<br>{design}"
