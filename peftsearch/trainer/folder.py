"""Output folder of a training: claimed, resumed, or overwritten on request.

While it trains it holds `training.yaml` (what the training is) and `progress/` (a snapshot for each seed). It is
finished when `metrics.json` is there, which is written last.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from peftsearch.errors import CheckpointError, PeftSearchError, one_line
from peftsearch.files import MAX_OUTPUT_BYTES, from_plain, read_yaml, to_plain, to_yaml, write_atomically
from peftsearch.study.settings import first_difference
from peftsearch.trainer.record import FORMAT, TrainingRecord

TRAINING = "training.yaml"
METRICS = "metrics.json"
PROGRESS = "progress"
LOCK = ".lock"
_STALE = (
    METRICS, TRAINING, "README.md", "peftsearch.yaml", "peftsearch.safetensors", "config.json", "model*.safetensors*",
    "curve.*",
)  # fmt: skip
"""What an overwritten training would leave beside the new one."""


def check_output(path: Path, overwrite: bool, resume: bool) -> None:
    """Refuse an output that exists; before anything is loaded, so that nobody waits for a refusal.

    Raises:
        CheckpointError: It is a file, holds something else, or holds a training that is neither to be replaced nor to
            go on.
    """
    if path.exists() and not path.is_dir():
        raise CheckpointError(f"{path}: is a file; give a folder with --output")
    if not path.is_dir() or all(item.name.startswith(".") for item in path.iterdir()):
        return
    if not (path / TRAINING).is_file():
        raise CheckpointError(f"{path}: is not empty and holds no training; give another --output, or empty it")
    if not overwrite and not resume:
        state = "a finished" if (path / METRICS).exists() else "an unfinished"
        raise CheckpointError(f"{path}: holds {state} training; add --overwrite to replace it, --resume to continue it")


@contextmanager
def claimed(path: Path, record: TrainingRecord, *, overwrite: bool, resume: bool) -> Iterator[None]:
    """Have an output folder for this training alone while the context lasts.

    Args:
        path: Made with its parents if it is not there.
        record: What the training is.
        overwrite: Whether a training in it is removed.
        resume: Whether a training of the same settings goes on.

    Raises:
        CheckpointError: As `check_output`; or it belongs to other settings, is in use, or cannot be written.
    """
    check_output(path, overwrite, resume)
    lock = FileLock(path / LOCK)
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise CheckpointError(f"{path}: another process trains into it; wait for it or stop it") from error
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be written: {error.strerror or error}") from error
    try:
        if overwrite:
            _clear(path)
        if (path / TRAINING).exists():
            _require_equal(path, record)
        else:
            write_atomically(path / TRAINING, to_yaml(to_plain(record)))
        yield
    finally:
        (path / LOCK).unlink(missing_ok=True)
        lock.release()


def _clear(path: Path) -> None:
    for pattern in _STALE:
        for file in path.glob(pattern):
            file.unlink()
    shutil.rmtree(path / PROGRESS, ignore_errors=True)


def is_finished(path: Path) -> bool:
    """Whether a training is finished in a folder."""
    return (path / METRICS).is_file()


def finish(path: Path, metrics: Mapping[str, Any]) -> None:
    """Write the metrics, by which the training is finished, and remove the snapshots."""
    write_atomically(path / METRICS, json.dumps(metrics, indent=2, ensure_ascii=False) + "\n")
    shutil.rmtree(path / PROGRESS, ignore_errors=True)


def snapshot_path(path: Path, seed: int) -> Path:
    """Where a seed's snapshot is in an output folder."""
    return path / PROGRESS / f"seed-{seed}.safetensors"


def read_training(path: Path) -> TrainingRecord:
    """What a finished training was.

    Raises:
        CheckpointError: There is none in the folder, it is not finished, or it is damaged.
    """
    if not (path / TRAINING).is_file():
        raise CheckpointError(
            f"{path}: holds no training (no {TRAINING}); give the folder of `peftsearch train --output`"
        )
    stored = read_yaml(path / TRAINING, MAX_OUTPUT_BYTES)
    if stored.get("format") != FORMAT:
        raise CheckpointError(f"{path / TRAINING}: format is {stored.get('format')!r}, this version reads {FORMAT!r}")
    if not (path / METRICS).is_file():
        raise CheckpointError(f"{path}: its training is not finished; the same command with --resume continues it")
    if read_metrics(path).get("seed") is None:
        raise CheckpointError(f"{path}: all its trainings diverged; train with --overwrite and a lower --learning-rate")
    return from_plain(TrainingRecord, stored, str(path / TRAINING), CheckpointError)


def stored_dtype(path: Path) -> str | None:
    """Precision of the training in a folder, finished or not: `fp32` or `bfloat16`; None if there is none to read."""
    dtype = _settings(path).get("dtype")
    return None if dtype is None else str(dtype)


def stored_threads(path: Path) -> int | None:
    """Threads of the training in a folder, finished or not; None if there is none to read."""
    threads = _settings(path).get("threads")
    return threads if isinstance(threads, int) and threads > 0 else None


def _settings(path: Path) -> dict[str, Any]:
    try:
        training = read_yaml(path / TRAINING, MAX_OUTPUT_BYTES).get("training")
    except PeftSearchError:
        return {}  # the folder is claimed later, and says what is wrong with it
    return training if isinstance(training, dict) else {}


def read_metrics(path: Path) -> dict[str, Any]:
    """The metrics of a finished training.

    Raises:
        CheckpointError: They are damaged.
    """
    try:
        metrics = json.loads((path / METRICS).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path / METRICS}: is damaged ({one_line(error, 80)}); train with --overwrite"
        ) from error
    assert isinstance(metrics, dict)
    return metrics


def _require_equal(path: Path, record: TrainingRecord) -> None:
    different = first_difference(read_yaml(path / TRAINING, MAX_OUTPUT_BYTES), to_plain(record))
    if different is not None:
        name, there, here = different
        raise CheckpointError(
            f"{path}: belongs to other settings: {name} is {one_line(repr(there), 60)} there and "
            f"{one_line(repr(here), 60)} here; give the same settings to --resume, or --overwrite"
        )
