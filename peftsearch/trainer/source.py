"""What a run left behind, as training needs it: the design, its settings, and where its data are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peftsearch.errors import MALFORMED, ConfigError, PeftSearchError, TaskError
from peftsearch.files import read_yaml
from peftsearch.study.best import Found, parse_found, read_best
from peftsearch.study.folder import SETTINGS
from peftsearch.tasks import EMBEDDED, Task, resolve_task
from peftsearch.trainer.options import TrainOptions

DATA = (
    "task", "train", "validation", "test", "text_column", "pair_column", "label_column", "prompt_column",
    "completion_column", "template", "kind", "metric", "max_train", "seed",
)  # fmt: skip
"""Options that say what the data are."""
_PATHS = ("train", "validation", "test")


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


def find_data(options: TrainOptions, run: Run | None) -> dict[str, Any]:
    """What `resolve_task` needs, from the options or else from the run; plain values.

    Raises:
        TaskError: The run's data cannot be found again from what it left behind.
    """
    own = {name: getattr(options, name) for name in DATA}
    own |= {name: None if own[name] is None else str(own[name]) for name in _PATHS}
    if run is None:
        return own
    own["seed"] = run.seed  # the data of other seeds are other data
    if options.train is not None and own["kind"] is None and run.found.task.get("kind") == "generation":
        own["kind"] = "generation"
    if options.task is not None or options.train is not None:
        return own
    if run.found.task.get("tasks"):
        names = ", ".join(str(task["name"]) for task in run.found.task["tasks"])
        raise TaskError(f"{run.path}: was found on several tasks ({names}); name one with --task")
    kept = _kept(run) or _told(run)
    for name in DATA[2:-1]:  # all but where the training examples come from, and the seed
        kept |= {name: own[name]} if own[name] is not None else {}
    return kept


def _kept(run: Run) -> dict[str, Any] | None:
    """The options that the run's folder keeps."""
    path = run.path.parent / SETTINGS
    if not path.is_file():
        return None
    settings = read_yaml(path)
    if settings.get("task_fingerprint") != run.found.task.get("fingerprint") or not isinstance(
        settings.get("options"), dict
    ):
        return None
    return {name: settings["options"].get(name) for name in DATA}


def _told(run: Run) -> dict[str, Any]:
    """What the source in `best.yaml` tells: enough for data sets that have a name."""
    kind, _, name = str(run.found.task.get("source")).partition(" ")
    name = name.partition(",")[0]
    data: dict[str, Any] = dict.fromkeys(DATA) | {"seed": run.seed, "metric": run.found.task.get("metric")}
    if (kind == "embedded" and name in EMBEDDED) or kind in ("hub", "folder"):
        return data | {"task": name}
    raise TaskError(
        f"{run.path}: was found on {run.found.task['source']}, which it does not hold; give the data with --train FILE "
        "--validation FILE (and --test FILE), or --task NAME"
    )


def load_data(data: Mapping[str, Any], run: Run | None) -> tuple[Task, tuple[str, ...]]:
    """Load the task; with what differs from the run's own data, in words.

    Raises:
        TaskError: The data cannot be found or used.
    """
    name = data["task"]
    try:
        task = resolve_task(name, **{key: value for key, value in data.items() if key != "task"})
    except PeftSearchError as error:
        if run is None:
            raise
        raise TaskError(
            f"{error} ({run.path} was found on {run.found.task['source']}; --train or --task names other data)"
        ) from error
    if run is None or task.fingerprint == run.found.task.get("fingerprint"):
        return task, ()
    return task, (f"the data are not those of {run.path}, which was found on {run.found.task['source']}",)
