"""Log runs to TensorBoard, Weights & Biases, MLflow and other trackers, through those of accelerate."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any

from peftsearch.errors import ConfigError, one_line, unknown_name

PACKAGES = {
    "tensorboard": ("tensorboard", "tensorboardX"),
    "wandb": ("wandb",),
    "mlflow": ("mlflow",),
    "trackio": ("trackio",),
    "comet_ml": ("comet_ml",),
    "aim": ("aim",),
    "clearml": ("clearml",),
    "dvclive": ("dvclive",),
    "swanlab": ("swanlab",),
}
"""Trackers of accelerate, and packages of which each needs one."""
Log = Callable[[Mapping[str, float], int], None]
"""Takes values by name, and the step that they belong to."""


def check_trackers(text: str | None) -> tuple[str, ...]:
    """Names in a comma-separated `--track`.

    Raises:
        ConfigError: There is no such tracker, or its package is not installed.
    """
    names = tuple(name.strip() for name in (text or "").split(",") if name.strip())
    for name in names:
        if name not in PACKAGES:
            raise ConfigError(f"--track: {unknown_name('tracker', name, PACKAGES)}")
        if not any(find_spec(package) for package in PACKAGES[name]):
            raise ConfigError(f"--track {name}: needs its package: pip install {PACKAGES[name][0]}")
    return names


@contextmanager
def tracking(
    names: tuple[str, ...], name: str, folder: Path, config: Mapping[str, Any], say: Callable[[str], None]
) -> Iterator[Log]:
    """Open trackers for a run; one that fails later is told once and left out, and the run goes on.

    Args:
        names: Names that `check_trackers` gave.
        name: Name of the run.
        folder: Folder for trackers that write files.
        config: Options of the run, by name.
        say: Receiver of a line about a tracker that fails.

    Yields:
        A function that logs values.

    Raises:
        ConfigError: A tracker cannot be opened.
    """
    open_trackers = {each: _open(each, name, folder, config) for each in names}

    counter = count(1)

    def log(values: Mapping[str, float], step: int) -> None:
        # Some trackers drop steps below the last one, and seeds and studies count anew: theirs is a value.
        now = next(counter)
        for each in list(open_trackers):
            try:
                open_trackers[each].log({**values, "step": step}, step=now)
            except Exception as error:  # a tracker may raise anything, and the work must not end with it
                say(f"--track {each}: {type(error).__name__}: {one_line(error, 160)}; it is left out from here on")
                del open_trackers[each]

    try:
        yield log
    finally:
        for each, tracker in open_trackers.items():
            try:
                tracker.finish()
            except Exception as error:  # as above
                say(f"--track {each}: {type(error).__name__}: {one_line(error, 160)}")


def _open(kind: str, name: str, folder: Path, config: Mapping[str, Any]) -> Any:
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    maker = LOGGER_TYPE_TO_CLASS[kind]
    try:
        if kind == "tensorboard":
            tracker = maker(name, str(folder))
        elif kind == "mlflow":
            tracker = maker(experiment_name="peftsearch", run_name=name)
        elif kind == "wandb":
            tracker = maker("peftsearch", name=name)
        else:
            tracker = maker(name)
        tracker.start()
        plain = {key: value for key, value in config.items() if isinstance(value, str | int | float | bool)}
        tracker.store_init_configuration(plain)
    except Exception as error:  # a tracker may raise anything: no login, no network, no disk
        raise ConfigError(
            f"--track {kind}: cannot be opened: {type(error).__name__}: {one_line(error, 160)}"
        ) from error
    return tracker
