"""`peftsearch extend`: let a finished run go on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from peftsearch.searcher.extend import ExtendOptions, extended
from peftsearch.searcher.options import EngineOptions, read_choices
from peftsearch.study.record import read_record


def extend(
    run: Path,
    /,
    options: Annotated[ExtendOptions | None, Parameter(name="*")] = None,
    engine: Annotated[EngineOptions | None, Parameter(name="*")] = None,
    *,
    storage: str = "",
    device: str | None = None,
    json: bool = False,
) -> int:
    """Let a run go on with more trials, seeds, baselines, steps or time; nothing is trained twice.

    Args:
        run: The run's folder.
        options: What to extend.
        engine: Where to train.
        storage: The run's Optuna storage URL (default: SQLite in the folder).
        device: cpu, cuda or cuda:1 (default: that of the run).
        json: Print the result as JSON; progress goes to stderr.
    """
    chosen = replace(extended(run, options or ExtendOptions(), storage=storage), engine=engine or EngineOptions())
    if device is not None:
        chosen = replace(chosen, machine=replace(chosen.machine, device=device))
    read_choices(chosen)  # before anything heavy is imported
    from peftsearch.cli.run import print_result
    from peftsearch.searcher.progress import choose_reporter
    from peftsearch.searcher.run import run_study
    from peftsearch.study.best import BEST

    before = _n_trials(run, storage)
    reporter = choose_reporter(machine=json)
    setup, result = run_study(chosen, reporter, resume=True, extends=True)
    print_result(result.best, setup.path / BEST, json=json, storage=storage)
    if _n_trials(run, storage) == before:
        reporter.note("Nothing was left to train: the answer is clear without it.")
    return 0


def _n_trials(run: Path, storage: str) -> int:
    record = read_record(run, storage)
    return len(record.search) + len(record.confirm)
