"""What a run left behind, as training needs it: the design, its settings, and where its data are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from peftsearch.errors import MALFORMED, ConfigError, PeftSearchError, TaskError
from peftsearch.files import from_plain, read_yaml
from peftsearch.options import TaskOptions, given
from peftsearch.study.best import Found, parse_found, read_best
from peftsearch.study.folder import SETTINGS
from peftsearch.tasks import EMBEDDED, Task, resolve_task
from peftsearch.trainer.options import TrainOptions


@dataclass(frozen=True, kw_only=True, slots=True)
class Data:
    """Where the data of a training are, as its folder keeps it."""

    options: TaskOptions
    seed: int
    """Decides the generated sentences and what is split off."""


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


def read_run(path: Path, design: str | None = None) -> Run:
    """Read a `best.yaml`, or that of a run's folder.

    Args:
        path: Of either.
        design: Name of another confirmed design than the pick.

    Raises:
        ConfigError: It is missing, no `best.yaml`, or damaged, or has no such design.
    """
    where, best = read_best(path, design)
    found = parse_found(where, best)
    try:
        return Run(
            path=Path(found.where),
            found=found,
            n_params=int(best["model"]["n_params"]),
            budget=str(best["budget"]["text"]),
            training=dict(best["training"]),
            seed=int(best["seed"]),
        )
    except MALFORMED as error:
        raise ConfigError(f"{found.where}: is damaged: {type(error).__name__} {error}") from error


def find_data(options: TrainOptions, run: Run | None) -> Data:
    """Find out where the data are: from the options, or else from the run.

    Raises:
        TaskError: The run's data cannot be found again from what it left behind.
    """
    own = options.task
    if run is None:
        return Data(options=own, seed=options.seed)
    if own.train is not None and own.kind is None and run.found.task.get("kind") == "generation":
        own = replace(own, kind="generation")
    if own.name is None and own.train is None:
        if run.found.task.get("tasks"):
            names = ", ".join(str(task["name"]) for task in run.found.task["tasks"])
            raise TaskError(f"{run.path}: was found on several tasks ({names}); name one with --task")
        others = [f.name for f in fields(own) if f.name not in ("name", "train")]
        own = replace(_kept(run) or _told(run), **given(own, *others))
    return Data(options=own, seed=run.seed)  # the data of other seeds are other data


def _kept(run: Run) -> TaskOptions | None:
    """The options that the run's folder keeps."""
    path = run.path.parent / SETTINGS
    if not path.is_file():
        return None
    settings = read_yaml(path)
    stored = settings.get("options")
    if settings.get("task_fingerprint") != run.found.task.get("fingerprint") or not isinstance(stored, dict):
        return None
    return from_plain(TaskOptions, stored.get("task"), str(path))


def _told(run: Run) -> TaskOptions:
    """What the source in `best.yaml` tells: enough for data sets that have a name."""
    kind, _, name = str(run.found.task.get("source")).partition(" ")
    name = name.partition(",")[0]
    if (kind == "embedded" and name in EMBEDDED) or kind in ("hub", "folder"):
        return TaskOptions(name=name, metric=run.found.task.get("metric"))
    raise TaskError(
        f"{run.path}: was found on {run.found.task['source']}, which it does not hold; give the data with --train FILE "
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
            f"{error} ({run.path} was found on {run.found.task['source']}; --train or --task names other data)"
        ) from error
    if run is None or task.fingerprint == run.found.task.get("fingerprint"):
        return task, ()
    return task, (f"the data are not those of {run.path}, which was found on {run.found.task['source']}",)
