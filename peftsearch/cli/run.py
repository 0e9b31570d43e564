"""What the commands do; imported only when one runs."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from peftsearch.cli.show import _print_best
from peftsearch.cli.terminal import reporter_of, terminal
from peftsearch.errors import BudgetError, ConfigError, StudyError
from peftsearch.searcher.progress import PlainReporter

if TYPE_CHECKING:
    from peftsearch.searcher.options import RunOptions


def run(arguments: argparse.Namespace) -> int:
    """`peftsearch run`: prepare, search, conclude, print."""
    from peftsearch.cli.tables import comparison_table, design_lines
    from peftsearch.errors import AllTrialsFailed
    from peftsearch.searcher.options import RunOptions
    from peftsearch.searcher.run import run_study

    given = {f.name: getattr(arguments, f.name) for f in fields(RunOptions)}
    options = RunOptions(**given) if arguments.budget is not None else _stored_options(arguments)
    try:
        setup, result = run_study(options, reporter_of(arguments.json), resume=arguments.resume)
    except AllTrialsFailed as error:
        print(f"peftsearch: {error}", file=sys.stderr)
        return 1
    if arguments.json:
        print(json.dumps(result.best, ensure_ascii=False))
        return 0
    console = terminal()
    console.print(comparison_table(result.rows, result.verdict.pick.name, setup.suite.metric, console))
    for line in design_lines(result.rows):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    _print_best(console, result.best, setup.path / "best.yaml", stages=False)  # told while it ran
    return 0


def _stored_options(arguments: argparse.Namespace) -> RunOptions:
    """The options of the study that `--resume` without a budget names."""
    from peftsearch.searcher.run import read_options
    from peftsearch.study.folder import SETTINGS

    if not arguments.resume:
        raise BudgetError(
            "run needs --budget, such as --budget 0.1%; or --resume [--name NAME] for a study begun before"
        )
    runs: Path = arguments.runs
    found = sorted(runs.glob(f"*/{SETTINGS}"), key=lambda p: p.stat().st_mtime)
    if arguments.name is None and not found:
        raise StudyError(f"{runs}: there is no study to resume; start one with --budget")
    _refuse_stored(arguments)
    folder = runs / arguments.name if arguments.name is not None else found[-1].parent
    where = {
        k: getattr(arguments, k)
        for k in ("engine", "ray_address", "cpus_per_trial", "gpus_per_trial", "max_concurrent", "baselines")
    }
    return replace(read_options(folder, arguments.storage), **where)


def _refuse_stored(arguments: argparse.Namespace) -> None:
    """A resumed study keeps the options that it was begun with; others would be passed over."""
    from peftsearch.searcher.options import RunOptions
    from peftsearch.searcher.run import NOT_STORED

    own = [f for f in fields(RunOptions) if f.name not in NOT_STORED | {"budget", "name"}]
    given = next((f.name for f in own if getattr(arguments, f.name) != f.default), None)
    if given is not None:
        raise ConfigError(
            f"--{given.replace('_', '-')} with --resume and no --budget: the study keeps the options that it was begun "
            "with; leave it out, or give the whole command with --budget"
        )


def worker(arguments: argparse.Namespace) -> int:
    """`peftsearch worker`: take part in a study that another process began."""
    from peftsearch.errors import AllTrialsFailed
    from peftsearch.searcher.run import join_study

    try:
        statement = join_study(arguments.run, arguments.storage, arguments.device, PlainReporter(sys.stdout))
    except AllTrialsFailed as error:
        print(f"peftsearch: {error}", file=sys.stderr)
        return 1
    print(statement)
    return 0
