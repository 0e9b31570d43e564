"""Finding and reading the YAML catalogues: search spaces and strategies, shipped ones and the user's own.

A name is looked up in this order: `package.module:Object` (a Python object), a path that ends in .yaml or .yml,
a shipped file. Files are read with `yaml.safe_load` only, without anchors (what YAML bombs are made of) and up to
64 KiB.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from peftsearch.errors import ConfigError, one_line, unknown_name

MAX_BYTES = 64 * 1024
"""Of what a user writes."""
MAX_OUTPUT_BYTES = 8 * 1024 * 1024
"""Of what peftsearch wrote itself: a `best.yaml` holds every confirmed design."""
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
        ConfigError: The file is missing, too large, no valid YAML, uses anchors, or is not a mapping with text keys.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from error
    return parse_yaml(raw, str(path), max_bytes)


def parse_yaml(raw: bytes, where: str, max_bytes: int = MAX_BYTES) -> dict[str, Any]:
    """Parse a small YAML mapping; `where` names it in messages.

    Raises:
        ConfigError: As `read_yaml`.
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
    """Refuse what makes a small text large or slow: anchors, aliases, deep nesting."""
    depth = 0
    for token in yaml.scan(text, yaml.SafeLoader):
        if isinstance(token, (yaml.AnchorToken, yaml.AliasToken)):
            raise ConfigError(f"{where}: YAML anchors and aliases are not allowed; write the values out")
        depth += isinstance(token, _OPENING)
        depth -= isinstance(token, _CLOSING)
        if depth > _MAX_DEPTH:
            raise ConfigError(f"{where}: not valid YAML here: nested deeper than {_MAX_DEPTH} levels")


def shipped(kind: str) -> dict[str, Any]:
    """The shipped files of a catalogue.

    Args:
        kind: `search_spaces` or `strategies`.

    Returns:
        Name to an openable resource, sorted by name.
    """
    try:
        root: Any = resources.files(f"peftsearch.{kind}")
        found = {Path(item.name).stem: item for item in root.iterdir() if item.name.endswith(".yaml")}
    except ModuleNotFoundError:
        found = {}
    if not found:  # a checkout that is on the path without being installed
        found = {path.stem: path for path in (Path(__file__).parent.parent / kind).glob("*.yaml")}
    return dict(sorted(found.items()))


def load_entry(kind: str, noun: str, name: str) -> tuple[str, Mapping[str, Any] | object]:
    """Look up one entry of a catalogue.

    Args:
        kind: `search_spaces` or `strategies`.
        noun: What the entry is called in messages: `space`.
        name: A shipped name, a path to a YAML file, or `package.module:Object`.

    Returns:
        The entry's own name, and its mapping or Python object.

    Raises:
        ConfigError: Nothing of that name, or it cannot be read.
    """
    if name.endswith((".yaml", ".yml")):
        return Path(name).stem, read_yaml(Path(name))
    if ":" in name:
        return name, load_object(name)
    files = shipped(kind)
    if name not in files:
        raise ConfigError(f"{unknown_name(noun, name, files)}; or give a .yaml file or package.module:Object")
    return name, parse_yaml(files[name].read_bytes(), f"{kind}/{name}.yaml")


def load_object(name: str) -> Any:
    """Import `package.module:Object`.

    Raises:
        ConfigError: It cannot be imported.
    """
    module, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except Exception as error:  # a module of the user's own may raise anything while it is imported
        raise ConfigError(f"{name}: cannot be imported: {one_line(error)}") from error
