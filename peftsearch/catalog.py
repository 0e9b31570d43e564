"""Find and read search spaces and strategies, both shipped YAML files and the user's own.

A name is looked up in this order: a path that ends in .yaml or .yml, `package.module:Object` (a Python object), a
shipped file. Files are read with `yaml.safe_load` only, without anchors (which YAML bombs need), and up to 64 KiB.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from peftsearch.errors import ConfigError, one_line, unknown_name
from peftsearch.files import parse_yaml, read_yaml


def shipped(kind: str) -> dict[str, Any]:
    """List the shipped files of a catalogue.

    Args:
        kind: `search_spaces` or `strategies`.

    Returns:
        Readable resources by name, sorted.
    """
    try:
        root: Any = resources.files(f"peftsearch.{kind}")
        found = {Path(item.name).stem: item for item in root.iterdir() if item.name.endswith(".yaml")}
    except ModuleNotFoundError:
        found = {}
    if not found:  # a checkout on the path that is not installed
        found = {path.stem: path for path in (Path(__file__).parent.parent / kind).glob("*.yaml")}
    return dict(sorted(found.items()))


def load_entry(kind: str, noun: str, name: str) -> tuple[str, Mapping[str, Any] | object]:
    """Look up one entry of a catalogue.

    Args:
        kind: `search_spaces` or `strategies`.
        noun: Noun for the entry in messages: `space`.
        name: A shipped name, a path to a YAML file, or `package.module:Object`.

    Returns:
        The entry's own name, and its mapping or Python object.

    Raises:
        ConfigError: There is no entry of that name, or it cannot be read.
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
        ConfigError: The object cannot be imported.
    """
    module, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except Exception as error:  # importing a user's module may raise anything
        raise ConfigError(f"{name}: cannot be imported: {one_line(error)}") from error
