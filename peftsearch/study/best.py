"""What a search found, read back: from a run's folder, its `best.yaml`, or the mapping in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

from peftsearch.backbone.anatomy import Backbone
from peftsearch.design.architecture import Architecture
from peftsearch.design.design import Design
from peftsearch.errors import MALFORMED, ConfigError, MethodError, one_line
from peftsearch.files import MAX_OUTPUT_BYTES, read_yaml

BEST = "best.yaml"
FORMAT = "peftsearch-best/1"
Source = str | PathLike[str] | Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """An architecture with the design and the backbone that it came from."""

    where: str
    """The file, for messages."""
    name: str
    """What the run calls it: `trial 14`, `lora`."""
    architecture: Architecture
    design: Design
    model_name: str
    """Hub id or folder of the backbone."""
    revision: str
    """Commit or fingerprint of the backbone's weights; empty when unknown."""
    model_type: str
    """transformers' name of the family."""
    stacks: dict[str, int]
    """Blocks of each stack of the backbone."""
    quantize: str | None = None
    """How the backbone's weights were packed; None when they were not."""
    task: dict[str, Any] = field(default_factory=dict)
    """Of the task: name, kind, labels, metric; with `tasks` in it where there are several."""
    study: str = ""
    """Folder of the run, as the run was given it; empty when unknown."""


def read_found(source: Source, design: str | None = None) -> Found:
    """Read what a search found.

    Args:
        source: A run's folder, the path of its `best.yaml`, or the mapping that the file holds.
        design: Name of another confirmed design than the pick: `trial 14` (or `14`), `lora`.

    Raises:
        ConfigError: There is no such file, or it is not the `best.yaml` of a run, or it is damaged, or it has no such
            design.
    """
    return parse_found(*read_best(source, design))


def read_best(source: Source, design: str | None = None) -> tuple[str, Mapping[str, Any]]:
    """The content of a `best.yaml`, with the design that is asked for in the place of the pick.

    Args:
        source: As for `read_found`.
        design: Likewise.

    Returns:
        The file, for messages, and its content.

    Raises:
        ConfigError: As `read_found`.
    """
    if isinstance(source, Mapping):
        where, data = "best", source
    else:
        path = Path(source)
        if path.is_dir():
            path = path / BEST
            if not path.is_file():
                raise ConfigError(f"{path.parent}: no {BEST}; the run is not finished, `peftsearch run` resumes it")
        where, data = str(path), read_yaml(path, MAX_OUTPUT_BYTES)
    if data.get("format") != FORMAT:
        raise ConfigError(f"{where}: is not the best.yaml of a run (format {data.get('format')!r}, not {FORMAT!r})")
    return where, data if design is None else _with_design(where, data, design)


def _with_design(where: str, data: Mapping[str, Any], design: str) -> Mapping[str, Any]:
    """The content with another confirmed design in the pick's place, whose name is then under `picked`.

    Verdict and scores stay as they are.
    """
    name = f"trial {design}" if str(design).isdecimal() else str(design)
    if name == data.get("name"):
        return data
    try:
        others = dict(data.get("confirmed") or {})
        if name not in others:
            known = ", ".join(map(str, (data["name"], *others)))
            older = "" if "confirmed" in data else "; `peftsearch run --resume --name NAME` writes down the others"
            raise ConfigError(f"{where}: has no confirmed design {one_line(name, 60)!r} (it has {known}{older})")
        own, budget = others[name], data["budget"]
        architecture = own["architecture"]
        used = int(architecture["n_params"])
        row: dict[str, Any] = next((row for row in data["comparison"] if row["name"] == name), {})
        return {
            **data,
            "name": name,
            "picked": data["name"],
            "design": own["design"],
            "architecture": architecture,
            "training": {**data["training"], "learning_rate": own["learning_rate"]},
            "budget": {**budget, "used": used, "share_used": row.get("share"), "changed": row.get("n_changed")},
        }
    except MALFORMED as error:
        raise ConfigError(f"{where}: is damaged: {type(error).__name__} {error}") from error


def parse_found(where: str, data: Mapping[str, Any]) -> Found:
    """What `read_best` gave, parsed.

    Raises:
        ConfigError: It is damaged.
    """
    try:
        model = data["model"]
        return Found(
            where=where,
            name=str(data["name"]),
            architecture=Architecture.from_dict(data["architecture"]),
            design=Design.from_dict(data["design"]),
            model_name=str(model["name"]),
            revision=str(model["revision"]),
            model_type=str(model["model_type"]),
            stacks={str(name): int(n) for name, n in model["stacks"].items()},
            quantize=None if model.get("quantize") is None else str(model["quantize"]),
            task=dict(data.get("task") or {}),
            study=str(data.get("study", "")),
        )
    except MALFORMED as error:
        raise ConfigError(f"{where}: is damaged: {type(error).__name__} {error}") from error
    except ConfigError as error:
        raise ConfigError(f"{where}: is damaged: {error}") from error


def require_same_backbone(found: Found, backbone: Backbone) -> None:
    """Refuse a backbone of another family or depth, naming the first difference.

    Widths are held against the architecture's own counts when it is injected.

    Raises:
        MethodError: The architecture was found on another kind of backbone.
    """
    own = {str(stack.name): len(stack.blocks) for stack in backbone.stacks}
    there, here = _kind(found.model_type, found.stacks), _kind(backbone.model_type, own)
    if there != here:
        raise MethodError(
            f"{found.where}: the architecture was found on {there}, this model is {here}; peftsearch.refit carries the "
            "design over and sizes it anew"
        )


def _kind(model_type: str, stacks: Mapping[str, int]) -> str:
    return f"{model_type} with " + " and ".join(f"{n} {name} blocks" for name, n in stacks.items())
