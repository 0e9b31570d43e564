"""One study from its options to its result; what `peftsearch run`, its workers and a sweep over budgets share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from peftsearch.engines.local import LocalEngine
from peftsearch.errors import StudyError
from peftsearch.progress import Reporter
from peftsearch.result import Result, conclude
from peftsearch.search import LocalDriver, Search
from peftsearch.setup import RunOptions, Setup, prepare
from peftsearch.storage import storage_faults
from peftsearch.study import StudyFolder, check_settings


def run_study(options: RunOptions, reporter: Reporter, *, resume: bool = False) -> tuple[Setup, Result]:
    """Prepare, search, confirm, judge, and write the result; goes on with a study that is there.

    Args:
        options: What to search.
        reporter: Is told of everything.
        resume: Refuse to begin a study that is not there.

    Raises:
        PeftSearchError: What is wrong with the options, the data, the model, the budget or the storage.
        AllTrialsFailed: No trial has a score.
    """
    setup = prepare(options)
    with open_study(setup, resume=resume) as folder:
        engine = engine_of(setup)
        for line in heading(setup):
            reporter.note(line)
        finalists = Search(setup, folder, engine, LocalDriver(engine), reporter).run()
        return setup, conclude(setup, folder, finalists, engine)


def engine_of(setup: Setup) -> LocalEngine:
    """The engine of this process."""
    return LocalEngine(setup.loaded, setup.task, setup.encoded, setup.training, setup.device, setup.autocast)


@contextmanager
def open_study(setup: Setup, *, resume: bool = False, shared: bool = False) -> Iterator[StudyFolder]:
    """The study's folder, closed at the end; faults of its storage become one line.

    Raises:
        StudyError: It belongs to other settings, is in use, cannot be used, or is to be resumed and is not there.
    """
    with storage_faults(setup.path):
        if not check_settings(setup.path, setup.settings) and resume:
            raise StudyError(f"{setup.path}: there is no study to resume; leave --resume out to start it")
        stored = stored_options(setup.options, setup.path.name)
        folder = StudyFolder(setup.path, setup.settings, setup.options.storage, stored, shared)
        try:
            yield folder
        finally:
            folder.close()


def stored_options(options: RunOptions, name: str) -> dict[str, Any]:
    """The options as YAML holds them, with the study's name; a storage, which may hold a password, stays out."""
    stored = {k: str(v) if isinstance(v, Path) else v for k, v in asdict(options).items()}
    return {k: v for k, v in stored.items() if k not in {"runs", "storage"}} | {"name": name}


def heading(setup: Setup) -> list[str]:
    """What is searched, in a few lines."""
    from peftsearch.backbone.device import hardware

    backbone, task, budget = setup.backbone, setup.task, setup.budget
    sizes = f"{len(task.train.labels):,} train, {len(task.validation.labels):,} validation"
    if task.test is not None:
        sizes += f", {len(task.test.labels):,} test"
    size = f"{backbone.n_params:,} parameters, {len(backbone.blocks)} blocks"
    return [
        f"Model: {backbone.name}, {size}, on {hardware(setup.device)}",
        f"Task: {task.name}, {task.kind}, {sizes}; {task.metric} (majority class {task.majority_score:.4f})",
        f"Budget: {budget.text} = {budget.n_params:,} trainable parameters"
        + ("" if setup.options.count_head else ", the task head apart"),
        f"Study: {setup.path} (the same command again resumes it)",
        *(f"Note: {note}" for note in setup.notes),
    ]
