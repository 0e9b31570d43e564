"""`peftsearch run`: search, confirm, and print the result."""

from __future__ import annotations

import json as json_text
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from peftsearch.errors import BudgetError, ConfigError, StudyError
from peftsearch.options import changed_options
from peftsearch.searcher.options import RunOptions, read_choices, read_options

if TYPE_CHECKING:
    from peftsearch.study.best import Best

NO_SIGNAL = 3
"""Status of `run --exit-code` where nothing was learned."""


def run(
    options: Annotated[RunOptions | None, Parameter(name="*")] = None,
    *,
    resume: bool = False,
    dry_run: bool = False,
    exit_code: bool = False,
    json: bool = False,
) -> int:
    """Search for the best mix of methods, confirm it, and write runs/NAME/best.yaml.

    Args:
        options: The options of the run.
        resume: Continue a study, by --name or the latest.
        dry_run: Show plan, time and memory, and train nothing.
        exit_code: Exit with 3 where the verdict is no signal, for scripts.
        json: Print the result as JSON; progress goes to stderr.
    """
    options = options or RunOptions()
    options = options if options.budget else _stored_options(options, resume)
    read_choices(options)  # before anything heavy is imported
    from peftsearch.searcher.finished import find_finished
    from peftsearch.searcher.progress import choose_reporter
    from peftsearch.study.best import BEST

    reporter = choose_reporter(machine=json)
    if dry_run:
        from peftsearch.searcher.run import show_plan

        show_plan(options, reporter)
        return 0
    known = find_finished(options)
    if known is not None:
        reporter.note(f"Study: {known[0]} is finished; `peftsearch extend` lets it go on")
        print_result(known[1], known[0] / BEST, json=json, storage=options.study.storage)
        return _status(known[1], exit_code)
    from peftsearch.searcher.run import run_study

    setup, found = run_study(options, reporter, resume=resume)
    print_result(found.best, setup.path / BEST, json=json, storage=options.study.storage)
    return _status(found.best, exit_code)


def _status(best: Best, exit_code: bool) -> int:
    return NO_SIGNAL if exit_code and best.verdict.kind == "no_signal" else 0


def print_result(best: Best, path: Path, *, json: bool, storage: str = "") -> None:
    """Print the table, the pick and the verdict of a run.

    Args:
        best: The result of the run.
        path: Its file.
        json: Whether to print best.yaml's content as JSON instead.
        storage: Storage URL of the study; empty for SQLite in the folder.
    """
    from peftsearch.cli.pareto import print_front
    from peftsearch.cli.show import print_best
    from peftsearch.cli.tables import comparison_table, design_lines
    from peftsearch.cli.terminal import terminal
    from peftsearch.study.best import best_content
    from peftsearch.study.confirmed import Confirmed
    from peftsearch.study.folder import read_settings
    from peftsearch.tasks.own_metric import short_name

    if json:
        print(json_text.dumps(best_content(best), ensure_ascii=False))
        return
    console = terminal()
    epochs = best.steps * int(best.training["batch_size"]) / max(1, best.task.n_train)
    trainings = f"{best.steps} steps ({epochs:.2g} epochs)"
    rows = [Confirmed.of(row) for row in best.comparison]
    console.print(comparison_table(rows, best.name, short_name(best.task.metric), console, trainings))
    for line in design_lines(rows):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    if len(read_settings(path.parent).objectives) > 1:
        print_front(console, path.parent, storage)
    print_best(console, best, path, stages=False)  # the stages were printed while it ran


def _stored_options(options: RunOptions, resume: bool) -> RunOptions:
    """Read the options of the study that `--resume` without a budget refers to."""
    if not resume:
        raise BudgetError(
            "run needs --budget, such as --budget 0.1%; or --resume [--name NAME] to continue an earlier study"
        )
    from peftsearch.study.settings import SETTINGS

    runs: Path = options.study.runs
    found = sorted(runs.glob(f"*/{SETTINGS}"), key=lambda p: p.stat().st_mtime)
    if options.study.name is None and not found:
        raise StudyError(f"{runs}: there is no study to resume; start one with --budget")
    _refuse_others(options)
    folder = runs / options.study.name if options.study.name is not None else found[-1].parent
    stored = read_options(folder, options.study.storage)
    return replace(stored, engine=options.engine, baselines=options.baselines)


def _refuse_others(options: RunOptions) -> None:
    """Refuse other options with `--resume`, because a resumed study keeps those that it was started with.

    Raises:
        ConfigError: Another option was given.
    """
    kept = {*changed_options(options.engine), *changed_options(options.study), "--baselines"}
    given = next(iter(changed_options(options, but=kept)), None)
    if given is not None:
        raise ConfigError(
            f"{given} with --resume and no --budget: the study keeps the options that it was started with; leave it "
            "out, or give the whole command with --budget"
        )
