"""The table of confirmed designs for the terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from rich.console import Console
from rich.table import Table

from peftsearch.study.confirmed import Confirmed
from peftsearch.units import plural, short_count


def comparison_table(rows: Sequence[Confirmed], pick: str, metric: str, console: Console, trainings: str = "") -> Table:
    """Make the table of the marked pick, all baselines and, below a line, the references.

    A narrow terminal gets counts in thousands and millions, and a very narrow one fewer columns.

    Args:
        rows: The rows.
        pick: Name of the picked design.
        metric: Name of the score.
        console: The terminal.
        trainings: What a confirmation trains, in words; empty leaves it out.
    """
    wide = console.options.update(max_width=10_000)
    for short, left_out in _LAYOUTS:
        table = _table(rows, pick, metric, short, left_out, trainings)
        if console.measure(table, options=wide).maximum <= console.width:
            break
    return table


_LAYOUTS: tuple[tuple[bool, tuple[str, ...]], ...] = (
    (False, ()),
    (False, ("changed",)),
    (True, ()),
    (True, ("changed", "exports to")),
    (True, ("changed", "of budget", "exports to")),
    (True, ("changed", "of budget", "in the search", "exports to")),
)
"""Layouts from wide to narrow: whether cells are short, and which columns are left out."""


def _table(
    rows: Sequence[Confirmed], pick: str, metric: str, short: bool, left_out: Sequence[str], trainings: str
) -> Table:
    has_test = any(r.test.values for r in rows)
    tasks = list(dict.fromkeys(task for row in rows for task in row.tasks))
    n_seeds = sorted({len(r.validation.values) for r in rows if r.validation.values})
    over = f"{n_seeds[0]} to {n_seeds[-1]} " if len(n_seeds) > 1 else f"{n_seeds[0]} " if n_seeds else ""
    unit = "seed" if n_seeds == [1] else "seeds"
    title = f"validation {metric}, mean ± standard deviation over {over}{unit}" + (trainings and f" of {trainings}")
    table = Table(title=title, title_justify="left")
    count = short_count if short else "{:,}".format
    columns: dict[str, Callable[[Confirmed], str]] = {
        "parameters": lambda row: "" if row.n_params is None else count(row.n_params),
        "of budget": lambda row: "" if row.share is None else f"{100 * row.share:.1f}%",
        "changed": lambda row: "" if row.n_changed is None else count(row.n_changed),
        "in the search": lambda row: "" if row.search_score is None else f"{row.search_score:.4f}",
        "confirmed": lambda row: row.validation.short if short else str(row.validation),
        **{task: partial(_task_mean, task) for task in tasks},
        **({"test": lambda row: row.test.short if short else str(row.test)} if has_test else {}),
        "exports to": _exports,
    }
    names = {"parameters": "trained", "of budget": "share", "in the search": "search"} if short else {}
    columns = {name: cell for name, cell in columns.items() if name not in left_out}
    table.add_column("design", no_wrap=True)
    for name in columns:
        table.add_column(names.get(name, name), justify="right", no_wrap=True)
    for row, above in zip(rows, (None, *rows), strict=False):
        if row.reference and above is not None and not above.reference:
            table.add_section()
        picked = row.name == pick
        name = f"{'→' if picked else ' '} {row.title}"
        table.add_row(name, *(cell(row) for cell in columns.values()), style="bold" if picked else None)
    return table


def _exports(row: Confirmed) -> str:
    """Formats that hold the design whole, besides peftsearch's own."""
    return "" if row.exports is None else ", ".join(row.exports) or "peftsearch"


def _task_mean(task: str, row: Confirmed) -> str:
    return f"{row.tasks[task].mean:.4f}" if task in row.tasks else ""


def design_lines(rows: Sequence[Confirmed]) -> list[str]:
    """Lines that describe the found designs and the references, and say why a baseline has no score."""
    lines = [f"  {r.name}: {r.detail}" for r in rows if r.detail and (not r.baseline or r.search_score is None)]
    if any(" | " in line for line in lines):
        lines.append(
            "  (how blocks are grouped, how the budget is shared among the groups, and the methods of each group, from "
            "G1 at the input)"
        )
    again = "collapsed and had to be tried again at a lower rate"
    return lines + [f"  {r.name}: {plural(r.n_collapsed, 'training')} {again}" for r in rows if r.n_collapsed]
