"""Run one study for each of several budgets, on one loaded backbone and one encoded task.

Everything is checked for all budgets before anything is trained. Each study has its own folder, NAME-<budget>, and
resumes by itself: repeating a sweep continues it, and adding a budget trains only the new one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from peftsearch.design.budget import parse_budget
from peftsearch.errors import AllTrialsFailed, BudgetError, ConfigError, one_line
from peftsearch.searcher.options import RunOptions, SweepOptions
from peftsearch.searcher.prepare import Setup, default_name, prepare
from peftsearch.searcher.progress import Reporter
from peftsearch.searcher.run import run_study
from peftsearch.study.folder import check_settings
from peftsearch.study.storage import storage_faults

_LONGEST_NAME = 80
"""Longest derived name, in characters, which leaves room for the budget after it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sweep:
    """A validated sweep."""

    whole: Setup
    """The setup whose model and data all budgets share."""
    options: tuple[RunOptions, ...]
    """Options of each study, smallest budget first."""
    out: Path
    """Folder of the front: runs/NAME-pareto."""


def plan_sweep(options: SweepOptions, budgets: Sequence[str]) -> Sweep:
    """Load the backbone and the data, and check every budget and every folder; writes nothing.

    Args:
        options: The options that all studies share.
        budgets: The budgets, as the user wrote them.

    Raises:
        PeftSearchError: An option, a budget or a folder cannot be used.
    """
    objective = one_line(options.search.objective, 60)
    if "," in options.search.objective:
        raise ConfigError(
            f"--objective {objective!r}: a sweep over --budgets searches for the score alone; "
            f"`peftsearch run --objective {objective}` finds a front in one study"
        )
    whole = prepare(options.at("100%"))
    _check_order(budgets, whole.backbone.n_params)
    name = options.study.name or default_name(options.at("sweep"), whole.suite, whole.backbone)[:_LONGEST_NAME]
    each = tuple(_named(options, _folder_name(options.study.runs, name, b)).at(b) for b in budgets)
    refused: dict[str, BudgetError] = {}
    setups = []
    for own in each:
        try:
            setups.append(prepare(own, like=whole))
        except BudgetError as error:
            refused[own.budget] = error
    if refused:
        names, reason = ", ".join(refused), [*refused.values()][-1]
        raise BudgetError(f"--budgets: {len(refused)} of {len(each)} cannot be used ({names}): {reason}")
    for setup in setups:
        with storage_faults(setup.path):
            check_settings(setup.path, setup.settings)
    return Sweep(whole=whole, options=each, out=options.study.runs / f"{name}-pareto")


def run_sweep(sweep: Sweep, reporter: Callable[[], Reporter]) -> list[Path]:
    """Run the rest of every study, smallest budget first; a study whose trials all fail does not end the sweep.

    Args:
        sweep: The validated sweep.
        reporter: Function that makes the reporter of one study.

    Returns:
        The folders of the studies that have scores; at least two.

    Raises:
        AllTrialsFailed: Fewer than two studies have scores.
    """
    done, reasons = [], []
    for i, options in enumerate(sweep.options):
        hears = reporter()
        hears.note(f"== Budget {options.budget} ({i + 1} of {len(sweep.options)})")
        try:
            setup, result = run_study(options, hears, like=sweep.whole)
        except AllTrialsFailed as error:
            reasons.append(f"budget {options.budget}: {error}")
            hears.note(f"Budget {options.budget} has no score: {error}")
            continue
        hears.note(result.verdict.statement)
        done.append(setup.path)
    if len(done) < 2:
        raise AllTrialsFailed(f"fewer than two budgets have scores; {reasons[0]}")
    return done


def _folder_name(runs: Path, name: str, budget: str) -> str:
    """Name of a budget's study; that of an earlier version, with a % in it, where there is one to go on with."""
    own = f"{name}-{budget.replace(' ', '').lstrip('+')}"
    return own if (runs / own).exists() else own.replace("%", "pct")


def _named(options: SweepOptions, name: str) -> SweepOptions:
    return replace(options, study=replace(options.study, name=name))


def _check_order(budgets: Sequence[str], n_backbone: int) -> None:
    """Check that the budgets ascend in parameters: `0.1%` and `22.7k` may be the same."""
    sizes = [parse_budget(b, n_backbone).n_params for b in budgets]
    for (a, n), (b, m) in pairwise(zip(budgets, sizes, strict=True)):
        if n == m:
            raise BudgetError(f"--budgets: {a} and {b} are the same budget ({n:,} parameters); name each once")
        if n > m:
            ordered = ",".join(b for _, b in sorted(zip(sizes, budgets, strict=True)))
            raise BudgetError(f"--budgets: {b} comes after {a}, which is larger; write --budgets {ordered}")
