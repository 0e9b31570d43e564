"""Read the design, the settings and the data source of a run for training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from peftsearch.errors import PeftSearchError, TaskError
from peftsearch.files import from_plain
from peftsearch.options import TaskOptions, given, lasting
from peftsearch.study.best import Found, parse_found, read_best
from peftsearch.study.folder import read_settings
from peftsearch.study.settings import SETTINGS
from peftsearch.study.stored_task import StoredTask
from peftsearch.tasks import EMBEDDED, Task, resolve_task
from peftsearch.trainer.options import TrainOptions
from peftsearch.trainer.record import Data


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """A finished run, read from its `best.yaml`."""

    path: Path
    """The file."""
    found: Found
    """Design, architecture, and the model that they were found on."""
    n_params: int
    """Parameters of that model."""
    budget: str
    """`0.1%`; a share is of whatever model it is applied to."""
    training: Mapping[str, Any]
    """Settings of the confirmation."""
    seed: int
    """Decides what was generated or split off."""

    @property
    def task(self) -> StoredTask:
        """The run's task, or several together."""
        return self.found.task


def read_run(path: Path, design: str | None = None) -> Run:
    """Read a `best.yaml`, or that of a run's folder.

    Args:
        path: A `best.yaml`, or the folder of its run.
        design: Name of another confirmed design than the pick.

    Raises:
        ConfigError: It is missing, no `best.yaml`, or damaged, or has no such design.
    """
    where, best = read_best(path, design)
    return Run(
        path=Path(where),
        found=parse_found(where, best),
        n_params=best.model.n_params,
        budget=best.budget.text,
        training=best.training,
        seed=best.seed,
    )


def find_data(options: TrainOptions, run: Run | None) -> Data:
    """Find out where the data are: from the options, or else from the run.

    Raises:
        TaskError: The run's data cannot be found again from what it left behind.
    """
    own = options.task
    if run is None:
        return Data(options=lasting(own), seed=options.seed)
    if own.train is not None and own.kind is None and run.task.kind == "generation":
        own = replace(own, kind="generation")
    if own.name is None and own.train is None:
        if run.task.tasks:
            names = ", ".join(task.name for task in run.task.tasks)
            raise TaskError(f"{run.path}: was found on several tasks ({names}); name one with --task")
        others = [f.name for f in fields(own) if f.name not in ("name", "train")]
        own = replace(_kept(run) or _told(run), **given(own, *others))
    return Data(options=lasting(own), seed=run.seed)  # the data of other seeds are other data


def _kept(run: Run) -> TaskOptions | None:
    """The options that the run's folder keeps."""
    folder = run.path.parent
    if not (folder / SETTINGS).is_file():
        return None
    settings = read_settings(folder)
    if settings.task_fingerprint != run.task.fingerprint or "task" not in settings.options:
        return None
    return from_plain(TaskOptions, settings.options["task"], str(folder / SETTINGS))


def _told(run: Run) -> TaskOptions:
    """What the source in `best.yaml` tells: enough for data sets that have a name."""
    kind, _, name = run.task.source.partition(" ")
    name = name.partition(",")[0]
    if (kind == "embedded" and name in EMBEDDED) or kind in ("hub", "folder"):
        return TaskOptions(name=name, metric=run.task.metric or None)
    raise TaskError(
        f"{run.path}: was found on {run.task.source}, which it does not hold; give the data with --train FILE "
        "--validation FILE (and --test FILE), or --task NAME"
    )


def load_data(data: Data, run: Run | None) -> tuple[Task, tuple[str, ...]]:
    """Load the task; with what differs from the run's own data, in words.

    Raises:
        TaskError: The data cannot be found or used.
    """
    try:
        task = resolve_task(data.options, data.seed)
    except PeftSearchError as error:
        if run is None:
            raise
        raise TaskError(
            f"{error} ({run.path} was found on {run.task.source}; --train or --task names other data)"
        ) from error
    if run is None or task.fingerprint == run.task.fingerprint:
        return task, ()
    return task, (f"the data are not those of {run.path}, which was found on {run.task.source}",)
