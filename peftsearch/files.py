"""Read and write files: atomic folders and files that overwrite only on request, and small YAML files."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import yaml

from peftsearch.errors import CheckpointError, ConfigError, PeftSearchError, one_line

Record = TypeVar("Record")
WEIGHTS = ("model*.safetensors", "model.safetensors.index.json", "adapter_model.*", "peftsearch.safetensors")
"""Patterns of old weight files that would be read together with, or instead of, the new ones."""


def check_output(directory: Path, overwrite: bool) -> None:
    """Refuse an output that exists; call it before loading anything, so that the user need not wait for the error.

    Raises:
        CheckpointError: The output is a file, or a non-empty folder that may not be overwritten.
    """
    if directory.exists() and not directory.is_dir():
        raise CheckpointError(f"{directory}: is a file; give a folder")
    if directory.is_dir() and not overwrite and any(directory.iterdir()):
        raise CheckpointError(
            f"{directory}: exists and is not empty; give another folder, or --overwrite (overwrite=True)"
        )


@contextmanager
def staged(directory: Path, overwrite: bool) -> Iterator[Path]:
    """Yield an empty folder next to the output, whose content becomes the output's content at the end.

    An error inside leaves the output unchanged. In an overwritten folder, files with the same names are replaced, old
    weights that could be mistaken for the new ones are removed, and everything else stays.

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
        stage.chmod(0o755)  # mkdtemp's default is for its user alone
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


MAX_BYTES = 64 * 1024
"""Largest YAML file of a user."""


MAX_OUTPUT_BYTES = 8 * 1024 * 1024
"""Largest YAML file of peftsearch itself; a `best.yaml` holds every confirmed design."""


_MAX_DEPTH = 20


_OPENING = (
    yaml.FlowSequenceStartToken,
    yaml.FlowMappingStartToken,
    yaml.BlockSequenceStartToken,
    yaml.BlockMappingStartToken,
)


_CLOSING = (yaml.FlowSequenceEndToken, yaml.FlowMappingEndToken, yaml.BlockEndToken)


def read_yaml(path: Path, max_bytes: int = MAX_BYTES) -> dict[str, Any]:
    """Read a small YAML mapping of at most `max_bytes`.

    Raises:
        ConfigError: The file is missing, too large, not valid YAML, uses anchors, or is not a mapping with text keys.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from error
    return parse_yaml(raw, str(path), max_bytes)


def parse_yaml(raw: bytes, where: str, max_bytes: int = MAX_BYTES) -> dict[str, Any]:
    """Parse a small YAML mapping; `where` names it in messages.

    Raises:
        ConfigError: The text is too large, not valid YAML, uses anchors, or is not a mapping with text keys.
    """
    if len(raw) > max_bytes:
        raise ConfigError(f"{where}: {len(raw):,} bytes; a configuration has at most {max_bytes:,}")
    try:
        text = raw.decode("utf-8-sig")
        _refuse_bombs(text, where)
        data = yaml.safe_load(text)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{where}: not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ConfigError(f"{where}: not valid YAML: {one_line(error)}") from error
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
        raise ConfigError(f"{where}: expected a mapping of names to values, got {type(data).__name__}")
    return data


def _refuse_bombs(text: str, where: str) -> None:
    """Refuse YAML features that make a small text large or slow to load: anchors, aliases, deep nesting."""
    depth = 0
    for token in yaml.scan(text, yaml.SafeLoader):
        if isinstance(token, (yaml.AnchorToken, yaml.AliasToken)):
            raise ConfigError(f"{where}: YAML anchors and aliases are not allowed; write the values out")
        depth += isinstance(token, _OPENING)
        depth -= isinstance(token, _CLOSING)
        if depth > _MAX_DEPTH:
            raise ConfigError(f"{where}: not valid YAML here: nested deeper than {_MAX_DEPTH} levels")


class _PlainDumper(yaml.SafeDumper):
    """Writes equal values out instead of referring to the first by an anchor."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def to_yaml(data: Mapping[str, Any]) -> str:
    """Dump a mapping as YAML, in its own order, with wide lines and without anchors."""
    text: str = yaml.dump(dict(data), Dumper=_PlainDumper, sort_keys=False, width=120, allow_unicode=True)
    return text


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a path to write to, whose file takes the place of another one at the end.

    An error inside leaves the other file as it was, and a crash leaves the old or the new one whole.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_atomically(path: Path, text: str) -> None:
    """Write a file so that a crash leaves either the old or the new content, never a part."""
    with replacing(path) as part, part.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def plain(value: Any) -> Any:
    """Convert a value to the form that YAML loads: tuples become lists, keys become text."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def write_state(packed: bytes, path: Path | str) -> None:
    """Write a serialised state, whole or not at all.

    Raises:
        OSError: The disk is full or read-only, or access is denied.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part:
        part.write_bytes(packed)


def to_plain(record: object) -> dict[str, Any]:
    """Convert a dataclass, including nested ones, to plain YAML and JSON values."""
    from pydantic import TypeAdapter

    values: dict[str, Any] = TypeAdapter(type(record)).dump_python(record, mode="json")
    return values


def from_plain(cls: type[Record], data: object, where: str, refusal: type[PeftSearchError] = ConfigError) -> Record:
    """Read a dataclass from the values of `to_plain`.

    Args:
        cls: The dataclass.
        data: Plain values, as in YAML and JSON.
        where: Name of the source in messages.
        refusal: Error to raise.

    Raises:
        ConfigError: The values have faults; lists all of them with their places. With `refusal`, that error instead.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(cls).validate_python(data)
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, fault['loc'])) or 'content'}: {fault['msg']}" for fault in error.errors()]
        raise refusal(f"{where}: is damaged: {one_line('; '.join(faults))}") from error
