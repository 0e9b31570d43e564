"""What a run left behind, as training needs it: the design, its settings, and where its data are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peftsearch.architecture import Architecture, Design
from peftsearch.catalog import read_yaml
from peftsearch.errors import ConfigError, PeftSearchError, TaskError
from peftsearch.outputs import BEST
from peftsearch.study import SETTINGS
from peftsearch.tasks import EMBEDDED, Task, resolve_task
from peftsearch.trainer.options import TrainOptions

DATA = (
    "task", "train", "validation", "test", "text_column", "pair_column", "label_column", "kind", "metric", "max_train",
    "seed",
)  # fmt: skip
"""Options that say what the data are."""
_PATHS = ("train", "validation", "test")


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """What a `best.yaml` holds."""

    path: Path
    design: Design
    architecture: Architecture
    model: Mapping[str, Any]
    """Name, revision, family, parameters and number of blocks of the model."""
    task: Mapping[str, Any]
    """Name, source and fingerprint of the data."""
    budget: str
    """`0.1%`; a share is of whatever model it is applied to."""
    training: Mapping[str, Any]
    """Settings of the confirmation."""
    seed: int


def read_found(path: Path) -> Found:
    """Read a `best.yaml`, or that of a run's folder.

    Raises:
        ConfigError: It is missing, no `best.yaml`, or damaged.
    """
    file = path / BEST if path.is_dir() else path
    if path.is_dir() and not file.exists():
        raise ConfigError(f"{path}: no {BEST}; give the folder of a finished run, or its {BEST}")
    best = read_yaml(file, max_bytes=8 * 1024 * 1024)
    if best.get("format") != "peftsearch-best/1":
        raise ConfigError(f"{file}: is not the best.yaml of a run (format {best.get('format')!r})")
    try:
        return Found(
            path=file,
            design=Design.from_dict(best["design"]),
            architecture=Architecture.from_dict(best["architecture"]),
            model={key: best["model"][key] for key in ("name", "revision", "model_type", "n_params", "stacks")},
            task={key: best["task"].get(key) for key in ("name", "kind", "source", "fingerprint", "metric", "tasks")},
            budget=str(best["budget"]["text"]),
            training=dict(best["training"]),
            seed=int(best["seed"]),
        )
    except (KeyError, TypeError, AttributeError, ValueError, ConfigError) as error:
        raise ConfigError(f"{file}: is damaged: {type(error).__name__} {error}") from error


def find_data(options: TrainOptions, found: Found | None) -> dict[str, Any]:
    """What `resolve_task` needs, from the options or else from the run; plain values.

    Raises:
        TaskError: The run's data cannot be found again from what it left behind.
    """
    own = {name: getattr(options, name) for name in DATA}
    own |= {name: None if own[name] is None else str(own[name]) for name in _PATHS}
    if found is None:
        return own
    own["seed"] = found.seed  # the data of other seeds are other data
    if options.task is not None or options.train is not None:
        return own
    if found.task["tasks"]:
        names = ", ".join(str(task["name"]) for task in found.task["tasks"])
        raise TaskError(f"{found.path}: was found on several tasks ({names}); name one with --task")
    kept = _kept(found) or _told(found)
    for name in ("validation", "test", "text_column", "pair_column", "label_column", "kind", "metric", "max_train"):
        kept |= {name: own[name]} if own[name] is not None else {}
    return kept


def _kept(found: Found) -> dict[str, Any] | None:
    """The options that the run's folder keeps."""
    path = found.path.parent / SETTINGS
    if not path.is_file():
        return None
    settings = read_yaml(path)
    if settings.get("task_fingerprint") != found.task["fingerprint"] or not isinstance(settings.get("options"), dict):
        return None
    return {name: settings["options"].get(name) for name in DATA}


def _told(found: Found) -> dict[str, Any]:
    """What the source in `best.yaml` tells: enough for data sets that have a name."""
    kind, _, name = str(found.task["source"]).partition(" ")
    name = name.partition(",")[0]
    data: dict[str, Any] = dict.fromkeys(DATA) | {"seed": found.seed, "metric": found.task["metric"]}
    if kind == "embedded" and name in EMBEDDED or kind in ("hub", "folder"):
        return data | {"task": name}
    raise TaskError(
        f"{found.path}: was found on {found.task['source']}, which it does not hold; give the data with --train FILE "
        "--validation FILE (and --test FILE), or --task NAME"
    )


def load_data(data: Mapping[str, Any], found: Found | None) -> tuple[Task, tuple[str, ...]]:
    """Load the task; with what differs from the run's own data, in words.

    Raises:
        TaskError: The data cannot be found or used.
    """
    name = data["task"]
    try:
        task = resolve_task(name, **{key: value for key, value in data.items() if key != "task"})
    except PeftSearchError as error:
        if found is None:
            raise
        raise TaskError(f"{error} ({found.path} was found on {found.task['source']}; --train or --task names other data)") from error
    if found is None or task.fingerprint == found.task["fingerprint"]:
        return task, ()
    return task, (f"the data are not those of {found.path}, which was found on {found.task['source']}",)
