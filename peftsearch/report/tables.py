"""Sections with tables: scores by task, trials without a score, all trials."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from statistics import mean
from typing import Any

from peftsearch.report.page import PALETTE, Cell, Chart, Item, Section, Table, Text, label
from peftsearch.study.record import Record
from peftsearch.study.trial_record import TrialRecord
from peftsearch.study.trials import State
from peftsearch.units import Scores, plural

_ENDED_WITHOUT = (State.FAILED, State.INFEASIBLE, State.PRUNED, State.INTERRUPTED)
_MEANING = {
    State.FAILED: "failed",
    State.INFEASIBLE: "did not fit the budget or tuned nothing",
    State.PRUNED: "stopped by the pruner",
    State.INTERRUPTED: "left unfinished by a killed process (not counted)",
}
_N_SHOWN = 5
"""Number of the search's best designs to show by task while nothing is confirmed."""


def tasks(record: Record) -> Section | None:
    """Section with the scores by task, for studies with several tasks; None for a single task."""
    confirmed = [t for t in record.confirm if t.score is not None and t.facts.task_scores]
    best = sorted((t for t in record.scored if t.facts.task_scores), key=lambda t: -(t.score or 0.0))
    shown = confirmed or best[:_N_SHOWN]
    if not shown:
        return None
    names = list(dict.fromkeys(str(task) for t in shown for task in t.facts.task_scores or ()))
    designs = list(dict.fromkeys(t.name for t in shown))
    data: list[dict[str, Any]] = []
    rows: list[list[Cell]] = []
    for i, design in enumerate(designs):
        own = [t.facts.task_scores or {} for t in shown if t.name == design]
        scores = {name: [float(s[name]) for s in own if s.get(name) is not None] for name in names}
        known = [name for name in names if scores[name]]
        data.append(
            {
                "type": "scatter", "mode": "markers", "name": label(design), "x": list(map(label, known)),
                "y": [mean(scores[name]) for name in known],
                "error_y": {"type": "data", "array": [_spread(scores[name]) for name in known], "width": 4},
                "marker": {"color": PALETTE[i % len(PALETTE)], "size": 9, "symbol": i % 8},
            }
        )  # fmt: skip
        rows.append([design, *(mean(scores[n]) if scores[n] else None for n in names)])
    ends = [
        y + sign * bar for d in data for y, bar in zip(d["y"], d["error_y"]["array"], strict=True) for sign in (-1, 1)
    ]
    margin = 0.08 * (max(ends) - min(ends)) or 0.01
    axis = {"title": {"text": "score"}, "range": [min(ends) - margin, max(ends) + margin]}  # grouped marks add zero
    what = "means of full trainings, with standard deviations over seeds" if confirmed else "short runs, one seed each"
    chart = Chart(
        figure={
            "data": data,
            "layout": {"scattermode": "group", "yaxis": axis, "xaxis": {"type": "category"}},
        },
        description="Score of each design on each task",
        caption=f"A design's score is the mean over its tasks; {what}.",
    )
    return Section(title="Task by task", items=[chart, Table(columns=["design", *names], rows=rows)])


def without_score(record: Record) -> Section:
    """Section with the failed, pruned and infeasible trials and their reasons, and those that violate a constraint."""
    every = (*record.search, *record.confirm)
    ended = [t for t in every if t.state in _ENDED_WITHOUT]
    broken = [t for t in every if t.violations]
    open_ = Counter(t.state for t in every if t.state in {State.RUNNING, State.WAITING})
    items: list[Item] = []
    counts = Counter(t.state for t in ended)
    if counts:
        said = "; ".join(f"{counts[state]} {_MEANING[state]}" for state in _ENDED_WITHOUT if counts[state])
        items.append(Text(text=f"Of {plural(len(every), 'trial')}: {said}."))
        rows: list[list[Cell]] = [[t.number, t.name, t.kind, t.state, t.reason, t.detail] for t in ended]
        columns = ["number", "name", "kind", "state", "reason", "design"]
        items.append(Table(columns=columns, rows=rows, caption="Reasons, trial by trial", folded=len(rows) > 10))
    if broken:
        rows = [[t.number, t.name, "; ".join(t.violations), t.score, t.detail] for t in broken]
        columns = ["number", "name", "violated constraints", "score", "design"]
        items.append(
            Table(columns=columns, rows=rows, caption="Trials that violate a constraint", folded=len(rows) > 10)
        )
    if open_:
        items.append(Text(text="Still open: " + ", ".join(f"{n} {state}" for state, n in open_.items()) + "."))
    if not items:
        items.append(Text(text="Every trial ended with a score within the constraints."))
    return Section(title="Trials without a result", items=items)


def all_trials(record: Record) -> Section:
    """Section with the folded table of all trials."""
    columns = ["number", "name", "kind", "stage", "state", f"{record.metric}", "parameters", "of budget", "steps",
               "seed", "learning rate", "training s", "design"]  # fmt: skip
    every = (*record.search, *record.confirm)
    measures = list(dict.fromkeys(m for t in every for m in t.measures if m != "params"))
    objectives = record.objectives if len(record.objectives) > 1 else ()
    rows = [[*_row(t), *(t.measures.get(m) for m in measures), *_values(t, objectives)] for t in every]
    caption = f"All {plural(len(every), 'trial')} (search {len(record.search)}, confirmation {len(record.confirm)})"
    columns += [*measures, *(f"objective {name}" for name in objectives)]
    return Section(title="All trials", items=[Table(columns=columns, rows=rows, caption=caption, folded=True)])


def _row(t: TrialRecord) -> list[Cell]:
    facts, share = t.facts, t.facts.share
    return [
        t.number,
        t.name,
        t.kind,
        t.stage,
        t.state,
        t.score,
        facts.n_params,
        None if share is None else f"{share:.1%}",
        facts.steps,
        facts.seed,
        facts.learning_rate,
        facts.train_s,
        t.detail,
    ]


def _values(trial: TrialRecord, objectives: Sequence[str]) -> list[Cell]:
    values: Sequence[Cell] = trial.values
    return [*values] if len(values) == len(objectives) else [None] * len(objectives)


def _spread(values: Sequence[float]) -> float:
    return Scores(tuple(values)).std or 0.0
