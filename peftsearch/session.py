"""One study from the options to the result, as the command line and the sweep over budgets run it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from peftsearch.engines.local import LocalEngine
from peftsearch.errors import StudyError
from peftsearch.progress import Reporter
from peftsearch.result import Result, conclude
from peftsearch.search import Search
from peftsearch.setup import RunOptions, Setup, prepare
from peftsearch.study import StudyFolder, check_settings, storage_faults


def run_study(
    options: RunOptions, reporter: Reporter, *, resume: bool = False, like: Setup | None = None
) -> tuple[Setup, Result]:
    """Prepare, search and conclude; what the folder already holds is taken up.

    Args:
        options: What to search.
        reporter: Is told of everything.
        resume: Whether there must be a study to resume.
        like: A setup of the same model and task, whose loaded backbone and encoded data serve this study too.

    Raises:
        PeftSearchError: What is wrong with the options, or with the folder.
        AllTrialsFailed: No trial has a score.
    """
    setup = prepare(options, like=like)
    with storage_faults(setup.path):
        if not check_settings(setup.path, setup.settings) and resume:
            raise StudyError(f"{setup.path}: there is no study to resume; leave --resume out to start it")
        folder = StudyFolder(setup.path, setup.settings, options.storage, _to_store(options, setup.path.name))
        try:
            engine = LocalEngine(setup.loaded, setup.task, setup.encoded, setup.training, setup.device, setup.autocast)
            for line in _heading(setup):
                reporter.note(line)
            finalists = Search(setup, folder, engine, reporter).run()
            return setup, conclude(setup, folder, finalists, engine)
        finally:
            folder.close()


def _to_store(options: RunOptions, name: str) -> dict[str, Any]:
    """The options as YAML holds them, with the study's name; a storage, which may hold a password, stays out."""
    stored = {k: str(v) if isinstance(v, Path) else v for k, v in asdict(options).items()}
    return {k: v for k, v in stored.items() if k not in {"runs", "storage"}} | {"name": name}


def _heading(setup: Setup) -> list[str]:
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
