"""Commands that follow a result, chosen by its verdict."""

from __future__ import annotations

import shlex
from pathlib import Path

from peftsearch.design.architecture import Architecture
from peftsearch.exporter.formats import exports_of
from peftsearch.study.best import Best


def next_steps(best: Best, run: str) -> list[str]:
    """Ready commands, the most useful first.

    Args:
        best: The result of a run.
        run: The run's folder, as the user gave it.
    """
    name = Path(run).resolve().name
    run = shlex.quote(run)
    extend = [f"peftsearch extend {run} {best.verdict.extend}"] if best.verdict.extend else []
    report = f"peftsearch report {run}"
    if best.verdict.kind == "no_signal":
        return [*extend, report]
    task = f" --task {best.task.tasks[0].name}" if best.task.tasks else ""
    train = f"peftsearch train {run}{task} --output {shlex.quote(f'{name}-trained')} --epochs 3 --seeds 3"
    form = next(iter(exports_of(Architecture.from_dict(best.architecture))), "peftsearch")
    export = f"peftsearch export {run}{task} --format {form} --output {shlex.quote(f'{name}-exported')}"
    return [*extend, train, export, report][:3]
