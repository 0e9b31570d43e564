"""Compare the confirmed designs with baselines and references over seeds, and the short runs with each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from peftsearch.report.page import Cell, Chart, Item, Section, Table, Text, label
from peftsearch.study.confirmed import Confirmed
from peftsearch.study.record import Record
from peftsearch.units import Scores, plural

_N_FOUND = 5
"""Number of the search's best designs to show next to the baselines."""


def comparison(record: Record) -> Section:
    """Section that compares the found designs with the baselines."""
    designs = record.confirmed()
    items: list[Item] = []
    if designs:
        n_seeds = sorted({len(c.validation.values) for c in designs})
        n = f"{n_seeds[0]}" if len(n_seeds) == 1 else f"{n_seeds[0]} to {n_seeds[-1]}"
        apart = ""
        if any(c.reference for c in designs):
            apart = " References train the model's own weights, outside the budget, and are never picked."
        items += [
            Chart(
                figure=_means(designs, record.metric),
                description="Mean score of each confirmed design with its standard deviation over seeds",
                caption=f"Full trainings, n = {n} {'seed' if n == '1' else 'seeds'} each. Large marks: means; bars: "
                "one standard deviation over seeds (n - 1), not the standard error; small marks: single seeds. The "
                "validation split also selected the designs; the claims are tested on the test examples, which "
                f"selected nothing.{apart}",
                height=150 + 52 * len(designs),
            ),
            _table(designs, record),
        ]
    else:
        items.append(Text(text="No design is confirmed yet by full trainings over several seeds.", kind="note"))
    return Section(title="Against the baselines", items=[*items, *_short_runs(record)])


def _means(designs: Sequence[Confirmed], metric: str) -> dict[str, Any]:
    """Chart with one row per design: validation above, test below."""
    rows = {c.name: i for i, c in enumerate(designs)}
    groups = [
        ("validation, found by the search", "--blue", "circle",
         [c for c in designs if not (c.baseline or c.reference)], False),
        ("validation, baseline", "--orange", "square", [c for c in designs if c.baseline], False),
        ("validation, reference", "--grey", "triangle-up", [c for c in designs if c.reference], False),
        ("test", "--green", "diamond", [c for c in designs if c.test.values], True),
    ]  # fmt: skip
    data: list[dict[str, Any]] = []
    for name, colour, symbol, own, test in groups:
        shift = 0.24 if test else 0.0
        values = [c.test if test else c.validation for c in own]
        if not own:
            continue
        text = [f"{label(c.title)}<br>{v.mean:.4f}{_spread_text(v)}" for c, v in zip(own, values, strict=True)]
        data += [
            {
                "type": "scatter", "mode": "markers", "name": f"each seed, {name}", "showlegend": False,
                "x": [v for scores in values for v in scores.values],
                "y": [rows[c.name] + shift for c, v in zip(own, values, strict=True) for _ in v.values],
                "marker": {"color": colour, "size": 5, "opacity": 0.55, "symbol": symbol}, "hoverinfo": "x",
            },
            {
                "type": "scatter", "mode": "markers", "name": name,
                "x": [v.mean for v in values], "y": [rows[c.name] + shift for c in own],
                "error_x": {"type": "data", "array": [v.std or 0.0 for v in values], "thickness": 1.5, "width": 6},
                "marker": {"color": colour, "size": 11, "symbol": symbol}, "hovertext": text, "hoverinfo": "text",
            },
        ]  # fmt: skip
    ticks = {"tickvals": list(rows.values()), "ticktext": [label(c.title) for c in designs]}
    layout = {
        "xaxis": {"title": {"text": label(metric)}},
        "yaxis": {**ticks, "range": [len(designs) - 0.4, -0.6], "zeroline": False, "fixedrange": True},
    }
    return {"data": data, "layout": layout}


def _spread_text(scores: Scores) -> str:
    n = len(scores.values)
    return f", n = {n}" if scores.std is None else f" ± {scores.std:.4f} (standard deviation, n = {n})"


def _table(designs: Sequence[Confirmed], record: Record) -> Table:
    has_test = any(c.test.values for c in designs)
    columns = ["design", "parameters", "of budget", "changed", "short run", f"validation {record.metric}", "std", "n"]
    rows: list[list[Cell]] = []
    for c in designs:
        row: list[Cell] = [c.title, c.n_params, None if c.share is None else f"{c.share:.1%}", c.n_changed]
        row += [c.search_score, c.mean, c.validation.std, len(c.validation.values)]
        if has_test:
            row += [c.test.mean, c.test.std] if c.test.values else [None, None]
        rows.append(row)
    if has_test:
        columns += ["test", "std of test"]
    strong = frozenset(i for i, c in enumerate(designs) if c.name == record.pick)
    return Table(
        columns=columns,
        rows=rows,
        strong=strong,
        caption="Bold: the pick. Short run: the search's last, one seed.",
    )


def _short_runs(record: Record) -> list[Item]:
    """Chart of the baselines and the search's best designs, at the search's fidelity."""
    scored = sorted(record.scored, key=lambda t: (-(t.score or 0.0), t.number))
    found = [t for t in scored if not t.is_baseline][:_N_FOUND]
    baselines = [t for t in scored if t.is_baseline]
    shown = sorted([*found, *baselines], key=lambda t: (-(t.score or 0.0), t.number))
    if not shown:
        return []
    names = [f"{t.name} (baseline)" if t.is_baseline else t.name for t in shown]
    data = []
    for name, colour, symbol, kind in (
        ("found by the search", "--blue", "circle", "search"),
        ("baseline", "--orange", "square", "baseline"),
    ):
        own = [(i, t) for i, t in enumerate(shown) if t.is_baseline == (kind == "baseline")]
        if own:
            data.append(
                {
                    "type": "scatter", "mode": "markers", "name": name,
                    "x": [t.score for _, t in own], "y": [i for i, _ in own],
                    "marker": {"color": colour, "size": 10, "symbol": symbol},
                    "hovertext": [f"{label(names[i])}<br>{t.score:.4f}" for i, t in own], "hoverinfo": "text",
                }
            )  # fmt: skip
    ticks = {"tickvals": list(range(len(shown))), "ticktext": [label(n) for n in names]}
    steps = {t.facts.steps for t in shown}
    fidelity = plural(next(iter(steps)) or 0, "step") if len(steps) == 1 else "few steps"
    return [
        Chart(
            figure={
                "data": data,
                "layout": {
                    "xaxis": {"title": {"text": label(f"{record.metric}, one short run")}},
                    "yaxis": {**ticks, "range": [len(shown) - 0.4, -0.6], "zeroline": False, "fixedrange": True},
                },
            },
            description="Score of each baseline and of the best designs found, one short training each",
            caption=f"The search's own trainings ({fidelity}, one seed): all baselines and the best {len(found)} "
            "designs found. A single training has no error bar, and the best of many is partly luck: rely on the full "
            "trainings above.",
            height=130 + 26 * len(shown),
        )
    ]
