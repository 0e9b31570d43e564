"""`--config FILE`: options of a command from a YAML file, which the command line overrides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from peftsearch.errors import ConfigError, one_line
from peftsearch.options import command_words, option_words

FLAG = "--config"
_STUDY = "peftsearch-study/"
"""Beginning of the format of a run's settings.yaml."""


def with_config(words: Sequence[str]) -> list[str]:
    """Replace `--config FILE` by the options of the file, before those of the command line, which hold against them.

    A file has options by their flags without the hyphens (`budget: 0.1%`, `search-steps: 30`), in groups or not; or it
    is the settings.yaml of a run, whose options it holds.

    Args:
        words: The command line, without the program's name.

    Raises:
        ConfigError: The file cannot be read, or holds something else.
    """
    words = [part for word in words for part in (word.split("=", 1) if word.startswith(f"{FLAG}=") else [word])]
    if FLAG not in words:
        return words
    at = words.index(FLAG)
    if at + 1 == len(words):
        raise ConfigError(f"{FLAG} needs a YAML file, such as {FLAG} run.yaml")
    path, rest = Path(words[at + 1]), [*words[:at], *words[at + 2 :]]
    if FLAG in rest:
        raise ConfigError(f"{FLAG}: is given twice; give one file")
    if not rest or rest[0].startswith("-"):
        raise ConfigError(f"{FLAG} {path}: needs a command before it, such as peftsearch run {FLAG} {path}")
    return [rest[0], *_words(path), *rest[1:]]


def _words(path: Path) -> list[str]:
    from peftsearch.files import MAX_OUTPUT_BYTES, read_yaml

    content = read_yaml(path, MAX_OUTPUT_BYTES)
    if str(content.get("format", "")).startswith(_STUDY):
        from peftsearch.files import from_plain
        from peftsearch.searcher.options import RunOptions

        return command_words(from_plain(RunOptions, content.get("options") or {}, f"{path}: options"))
    return [word for name, value in _flat(path, content) for word in _option(path, name, value)]


def _flat(path: Path, content: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Options without their groups.

    Raises:
        ConfigError: An option stands twice.
    """
    found: dict[str, Any] = {}
    for name, value in content.items():
        inner = _flat(path, value) if isinstance(value, Mapping) else [(str(name), value)]
        for key, own in inner:
            if key in found:
                raise ConfigError(f"{path}: {one_line(key, 60)!r} stands twice; leave one out")
            found[key] = own
    return list(found.items())


def _option(path: Path, name: str, value: Any) -> list[str]:
    flag = f"--{name.replace('_', '-').removeprefix('--')}"
    if flag == FLAG:
        raise ConfigError(f"{path}: {name!r}: a file cannot name another one")
    if value is None:
        return []
    if isinstance(value, list):
        value = ",".join(map(str, value))
    if not isinstance(value, str | int | float):
        raise ConfigError(f"{path}: {one_line(name, 60)!r} is a {type(value).__name__}; give a text or a number")
    return option_words(flag, value)
