"""Writing a folder whole or not at all, and never over something that is not asked for."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from peftsearch.errors import CheckpointError

WEIGHTS = ("model*.safetensors", "model.safetensors.index.json", "adapter_model.*", "peftsearch.safetensors")
"""Files of an earlier content that would be read beside, or in place of, the new ones."""


def check_output(directory: Path, overwrite: bool) -> None:
    """Refuse an output that exists; called before anything is loaded, so that nobody waits for a refusal.

    Raises:
        CheckpointError: It is a file, or a folder that is not empty and may not be overwritten.
    """
    if directory.exists() and not directory.is_dir():
        raise CheckpointError(f"{directory}: is a file; give a folder")
    if directory.is_dir() and not overwrite and any(directory.iterdir()):
        raise CheckpointError(f"{directory}: exists and is not empty; give another, or --overwrite (overwrite=True)")


@contextmanager
def staged(directory: Path, overwrite: bool) -> Iterator[Path]:
    """Give an empty folder beside the output; what is in it at the end becomes the output's content.

    An error inside leaves the output as it was. Of what an overwritten folder holds, files of the same names are
    replaced and weights that would be mistaken for the new ones removed; everything else stays.

    Raises:
        CheckpointError: The output exists, or cannot be written.
    """
    check_output(directory, overwrite)
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        stage = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
    except OSError as error:
        raise CheckpointError(f"{directory}: cannot be written: {error.strerror or error}") from error
    try:
        yield stage
        _move(stage, directory)
    except OSError as error:
        raise CheckpointError(f"{directory}: cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _move(stage: Path, directory: Path) -> None:
    if not directory.exists():
        stage.chmod(0o755)  # mkdtemp's own is for its user alone
        stage.rename(directory)
        return
    new = {path.name for path in stage.iterdir()}
    for path in sorted(stage.iterdir()):
        target = directory / path.name
        if path.is_dir() and target.is_dir():
            _move(path, target)
        else:
            path.replace(target)
    for pattern in WEIGHTS:
        for path in directory.glob(pattern):
            if path.name not in new:
                path.unlink()
