"""The confirmed designs and the baselines side by side: rows of scores, and the table that a terminal shows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from statistics import mean, stdev
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.table import Table

from peftsearch.design.references import Reference
from peftsearch.design.text import design_line
from peftsearch.searcher.finalists import Finalist, not_interrupted
from peftsearch.study.trials import INTERRUPTED, KIND, score_of
from peftsearch.units import short_count


@dataclass(frozen=True, kw_only=True, slots=True)
class Scores:
    """Scores of one design over seeds."""

    values: tuple[float, ...]

    def to_dict(self) -> dict[str, Any] | None:
        """Mean, standard deviation (None below two), n and the values; None without values."""
        if not self.values:
            return None
        return {
            "mean": mean(self.values),
            "std": stdev(self.values) if len(self.values) > 1 else None,
            "n": len(self.values),
            "values": list(self.values),
        }

    @property
    def short(self) -> str:
        """Mean and standard deviation; empty without values."""
        if not self.values:
            return ""
        spread = f" ± {stdev(self.values):.4f}" if len(self.values) > 1 else ""
        return f"{mean(self.values):.4f}{spread}"

    def __str__(self) -> str:
        return f"{self.short} (n={len(self.values)})" if self.values else ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One line of the result table."""

    name: str
    baseline: bool
    detail: str
    """The design in one line, or why there is no score."""
    n_params: int | None
    n_changed: int | None
    """Parameters in which the result differs from the model, added ones included; None where nobody counted them."""
    share: float | None
    """Share of the budget that is used."""
    search_score: float | None
    """Score at the search's fidelity; one seed."""
    validation: Scores
    test: Scores
    tasks: Mapping[str, Scores] = field(default_factory=dict)
    """Validation scores of each task, where there are several."""
    reference: bool = False
    """Whether it trains the model's own weights, outside the budget, and is never chosen."""


def make_rows(
    search: optuna.Study,
    finalists: Sequence[Finalist],
    confirmed_trials: Mapping[str, Mapping[int, FrozenTrial]],
    tests: Mapping[str, Scores],
    budget: int,
) -> tuple[Row, ...]:
    """Confirmed designs first, best mean on top; then the other baselines by their search score.

    Args:
        search: The study of the search.
        finalists: The confirmed designs.
        confirmed_trials: Their trainings, by name and seed.
        tests: Test scores of those that were read.
        budget: Trainable parameters of the study's budget.
    """
    trials = [t for t in search.get_trials(deepcopy=False) if not t.user_attrs.get(INTERRUPTED)]
    by_name = {t.user_attrs.get("name"): t for t in trials}
    rows = []
    for f in finalists:
        rows.append(
            Row(
                name=f.name,
                baseline=f.baseline,
                detail=design_line(f.design),
                n_params=f.architecture.n_params,
                n_changed=_n_changed(by_name[f.name]),
                share=f.architecture.n_params / budget,
                search_score=score_of(by_name[f.name]),
                validation=Scores(values=tuple(map(score_of, confirmed_trials[f.name].values()))),
                test=tests.get(f.name, Scores(values=())),
                tasks=_task_scores(confirmed_trials[f.name].values()),
            )
        )
    rows.sort(key=lambda r: -(mean(r.validation.values) if r.validation.values else float("-inf")))
    confirmed = {f.name for f in finalists}
    others = [t for name, t in by_name.items() if t.user_attrs.get(KIND) == "baseline" and name not in confirmed]
    others.sort(key=lambda t: -(score_of(t) if t.state == TrialState.COMPLETE else float("-inf")))
    return (*rows, *map(_unconfirmed, others))


def reference_rows(confirm: optuna.Study, references: Sequence[Reference]) -> tuple[Row, ...]:
    """The references in their order.

    Args:
        confirm: The study of the confirmation.
        references: Of the study.
    """
    rows = []
    for reference in references:
        own = [t for t in not_interrupted(confirm) if t.user_attrs.get("name") == reference.name]
        done = [t for t in own if t.state == TrialState.COMPLETE]
        reasons = [str(t.user_attrs["reason"]) for t in own if "reason" in t.user_attrs]
        rows.append(
            Row(
                name=reference.name,
                baseline=False,
                detail=reference.detail if done else next(iter(reasons), ""),
                n_params=reference.n_params,
                n_changed=reference.n_params,
                share=None,
                search_score=None,
                validation=Scores(values=tuple(map(score_of, done))),
                test=Scores(values=tuple(t.user_attrs["test_score"] for t in done if "test_score" in t.user_attrs)),
                tasks=_task_scores(done),
                reference=True,
            )
        )
    return tuple(rows)


def _task_scores(trials: Iterable[FrozenTrial]) -> dict[str, Scores]:
    """Scores of each task over the seeds; empty where there is but one."""
    stated = [t.user_attrs["task_scores"] for t in trials if "task_scores" in t.user_attrs]
    return {task: Scores(values=tuple(s[task] for s in stated)) for task in (stated[0] if stated else ())}


def _n_changed(trial: FrozenTrial) -> int | None:
    """What was counted when the trial was measured."""
    counted = trial.user_attrs.get("measures", {}).get("changed_params")
    return None if counted is None else int(counted)


def _unconfirmed(trial: FrozenTrial) -> Row:
    done = trial.state == TrialState.COMPLETE
    return Row(
        name=str(trial.user_attrs.get("name")),
        baseline=True,
        detail="" if done else str(trial.user_attrs.get("reason", trial.state.name.lower())),
        n_params=trial.user_attrs.get("n_params"),
        n_changed=_n_changed(trial),
        share=trial.user_attrs.get("share"),
        search_score=score_of(trial) if done else None,
        validation=Scores(values=()),
        test=Scores(values=()),
    )


def comparison_table(rows: Sequence[Row], pick: str, metric: str, console: Console) -> Table:
    """The rows for a terminal: the pick, which is marked, against every baseline; references below a line.

    A terminal that is too narrow gets counts in thousands and millions, and below that fewer columns.
    """
    wide = console.options.update(max_width=10_000)
    for short, left_out in _LAYOUTS:
        table = _table(rows, pick, metric, short, left_out)
        if console.measure(table, options=wide).maximum <= console.width:
            break
    return table


_LAYOUTS: tuple[tuple[bool, tuple[str, ...]], ...] = (
    (False, ()),
    (True, ()),
    (True, ("of budget",)),
    (True, ("of budget", "one short run")),
)
"""From wide to narrow: whether cells are short, and the columns that are left out."""


def _table(rows: Sequence[Row], pick: str, metric: str, short: bool, left_out: Sequence[str]) -> Table:
    has_test = any(r.test.values for r in rows)
    tasks = list(dict.fromkeys(task for row in rows for task in row.tasks))
    n_seeds = sorted({len(r.validation.values) for r in rows if r.validation.values})
    over = f"{n_seeds[0]} to {n_seeds[-1]} " if len(n_seeds) > 1 else f"{n_seeds[0]} " if n_seeds else ""
    table = Table(title=f"validation {metric}, mean ± standard deviation over {over}seeds", title_justify="left")
    count = short_count if short else "{:,}".format
    columns: dict[str, Callable[[Row], str]] = {
        "parameters": lambda row: "" if row.n_params is None else count(row.n_params),
        "of budget": lambda row: "" if row.share is None else f"{100 * row.share:.1f}%",
        "changed": lambda row: "" if row.n_changed is None else count(row.n_changed),
        "one short run": lambda row: "" if row.search_score is None else f"{row.search_score:.4f}",
        "confirmed": lambda row: row.validation.short if short else str(row.validation),
        **{task: partial(_task_mean, task) for task in tasks},
        **({"test": lambda row: row.test.short if short else str(row.test)} if has_test else {}),
    }
    names = {"parameters": "trained", "of budget": "share", "one short run": "short run"} if short else {}
    columns = {name: cell for name, cell in columns.items() if name not in left_out}
    table.add_column("design", no_wrap=True)
    for name in columns:
        table.add_column(names.get(name, name), justify="right", no_wrap=True)
    for row, above in zip(rows, (None, *rows), strict=False):
        if row.reference and above is not None and not above.reference:
            table.add_section()
        picked = row.name == pick
        kind = " (baseline)" if row.baseline else " (reference)" if row.reference else ""
        name = f"{'→' if picked else ' '} {row.name}{kind}"
        table.add_row(name, *(cell(row) for cell in columns.values()), style="bold" if picked else None)
    return table


def _task_mean(task: str, row: Row) -> str:
    return f"{mean(row.tasks[task].values):.4f}" if task in row.tasks else ""


def design_lines(rows: Sequence[Row]) -> list[str]:
    """What the found designs and the references are, and why a baseline has no score."""
    return [f"  {r.name}: {r.detail}" for r in rows if r.detail and (not r.baseline or r.search_score is None)]
