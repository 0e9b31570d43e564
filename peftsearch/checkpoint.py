"""A found architecture in a user's own code: put into a model, saved with what was trained, and loaded again.

A saved folder holds `peftsearch.yaml` (the architecture, the backbone that it belongs to, the task) and
`peftsearch.safetensors` (the injected parameters and the head, bit for bit as they were). The backbone is not in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from peftsearch import injection
from peftsearch.architecture import Architecture
from peftsearch.backbone.anatomy import Backbone
from peftsearch.backbone.detect import detect
from peftsearch.backbone.load import LoadedBackbone, load_backbone
from peftsearch.catalog import read_yaml
from peftsearch.errors import CheckpointError, ConfigError, MethodError
from peftsearch.found import MAX_BYTES, Source, read_found, require_same_backbone
from peftsearch.injection import Injection, injection_of, read_state, save_state, set_state
from peftsearch.output_folder import staged
from peftsearch.shapes import Shapes, fingerprint_shapes, first_mismatch, list_shapes

FACTS = "peftsearch.yaml"
WEIGHTS = "peftsearch.safetensors"
FORMAT = "peftsearch-checkpoint/1"
_HEADED = "ForSequenceClassification"


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """What a saved folder says of itself, its tensors apart."""

    where: Path
    """The folder."""
    architecture: Architecture
    model: dict[str, Any]
    """The backbone: name, revision, model_type, class, n_params, stacks, shapes, num_labels, problem_type."""
    shapes: Shapes
    """The widths of the backbone's maps and norms."""
    task: dict[str, Any] = field(default_factory=dict)
    """Of the task, where known: name, kind, labels, metric."""


def inject(
    model: nn.Module, architecture: Architecture | Source, backbone: Backbone | None = None, seed: int = 0
) -> Injection:
    """Freeze a model and put an architecture into it; the parameters of its head stay trainable.

    Args:
        model: A transformers model, without an architecture in it.
        architecture: What to put in: an `Architecture`, a run's folder, its `best.yaml`, or the mapping in that.
        backbone: The model's anatomy; None detects it.
        seed: Seed of the initial values. The global random generators are left as they are.

    Returns:
        The injection; its `remove()` restores the model bit for bit.

    Raises:
        ConfigError: The source cannot be read.
        MethodError: The model carries an architecture already, or this one was found on another kind of model.
        BackboneError: The model is not understood.
    """
    backbone = identify(model) if backbone is None else backbone
    if isinstance(architecture, Architecture):
        return injection.inject(model, architecture, backbone, seed)
    found = read_found(architecture)
    require_same_backbone(found, backbone)
    done = injection.inject(model, found.architecture, backbone, seed)
    done.injected.task = {k: found.task[k] for k in ("name", "kind", "labels", "metric") if k in found.task}
    return done


def identify(model: nn.Module) -> Backbone:
    """Read a model's anatomy, with the name and the commit that transformers keeps in its config."""
    if hasattr(model, injection.NAME):
        return injection_of(model).backbone
    config = getattr(model, "config", None)
    name, commit = getattr(config, "_name_or_path", ""), getattr(config, "_commit_hash", None)
    return detect(model, str(name or ""), str(commit or ""))


def save(
    model: nn.Module,
    directory: str | PathLike[str],
    *,
    overwrite: bool = False,
    task: Mapping[str, Any] | None = None,
    base: str = "",
) -> None:
    """Write what an injected model learned, with all that it takes to put it back; whole or not at all.

    Args:
        model: A model with an architecture in it.
        directory: The folder to make.
        overwrite: Whether an earlier save in it may be replaced.
        task: What is known of the task (name, kind, labels, metric); None takes what `inject` and `load` know.
        base: Where the backbone is found; empty for the name that it was loaded by.

    Raises:
        MethodError: The model carries no architecture.
        CheckpointError: The folder exists, or cannot be written.
    """
    carried = injection_of(model)
    facts = {
        "format": FORMAT,
        "model": _model_facts(carried, base),
        "task": dict(task or carried.injected.task),
        "architecture": carried.architecture.to_dict(),
        "shapes": {place: list(shape) for place, shape in list_shapes(carried.backbone).items()},
    }
    with staged(Path(directory), overwrite) as stage:
        save_state(model, stage / WEIGHTS)
        text = yaml.safe_dump(facts, sort_keys=False, width=120, allow_unicode=True, default_flow_style=None)
        (stage / FACTS).write_text(text, encoding="utf-8")


def _model_facts(carried: Injection, base: str) -> dict[str, Any]:
    model: Any = carried.model
    backbone, config = carried.backbone, getattr(model, "config", None)
    return {
        "name": base or backbone.name,
        "revision": "" if base else backbone.revision,
        "model_type": backbone.model_type,
        "class": type(model).__name__,
        "n_params": backbone.n_params,
        "stacks": {stack.name: len(stack.blocks) for stack in backbone.stacks},
        "shapes": fingerprint_shapes(backbone),
        "num_labels": getattr(config, "num_labels", None),
        "problem_type": getattr(config, "problem_type", None),
    }


def load(
    model: nn.Module | None,
    directory: str | PathLike[str],
    *,
    device: torch.device | str = "cpu",
    trust_remote_code: bool = False,
) -> Injection:
    """Put a saved folder into a model; an error leaves the model as it was.

    Args:
        model: The backbone that it was saved from, with or without this architecture in it; None loads the backbone
            by its saved name.
        directory: A folder of `save`.
        device: Where a model that is loaded goes.
        trust_remote_code: Whether code that a hub model brings with it may run.

    Returns:
        The injection; its `model` is the model.

    Raises:
        CheckpointError: The folder is not one of `save`, is damaged, or belongs to another model.
        BackboneError: The backbone cannot be loaded or understood.
    """
    checkpoint = read_checkpoint(directory)
    values = read_tensors(checkpoint)
    if model is None:
        loaded = load_base(checkpoint, device=device, trust_remote_code=trust_remote_code)
        model, backbone = loaded.model, loaded.backbone
        assert isinstance(model, nn.Module)
    else:
        backbone = identify(model)
    return put(model, backbone, checkpoint, values)


def put(model: nn.Module, backbone: Backbone, checkpoint: Checkpoint, values: Mapping[str, torch.Tensor]) -> Injection:
    """Put what was read from a folder into a model; an error leaves the model as it was.

    Raises:
        CheckpointError: The folder belongs to another model, or its parts do not belong together.
    """
    _require_same_model(checkpoint, backbone)
    _check_head(checkpoint, values, model, backbone)
    fresh = not hasattr(model, injection.NAME)
    try:
        done = injection.inject(model, checkpoint.architecture, backbone) if fresh else injection_of(model)
        if done.architecture != checkpoint.architecture:
            raise CheckpointError(f"{checkpoint.where}: the model carries another architecture; remove(model) first")
        set_state(model, values)
    except MethodError as error:
        if fresh and hasattr(model, injection.NAME):
            injection.remove(model)
        raise CheckpointError(f"{checkpoint.where}: {error}") from error
    done.injected.task = dict(checkpoint.task)
    return done


def read_checkpoint(directory: str | PathLike[str]) -> Checkpoint:
    """Read what a saved folder says of itself.

    Raises:
        CheckpointError: It is not a folder of `save`, or it is damaged.
    """
    folder = Path(directory)
    if not (folder / FACTS).is_file():
        what = "holds no checkpoint" if folder.is_dir() else "no such folder"
        raise CheckpointError(f"{folder}: {what} (no {FACTS}); give a folder made by peftsearch.save")
    try:
        data = read_yaml(folder / FACTS, MAX_BYTES)
        if data.get("format") != FORMAT:
            raise CheckpointError(f"{folder / FACTS}: format is {data.get('format')!r}, this version reads {FORMAT!r}")
        return _parse(folder, data)
    except (ConfigError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{folder / FACTS}: is damaged: {error}") from error


def _parse(folder: Path, data: Mapping[str, Any]) -> Checkpoint:
    model = dict(data["model"])
    for key in ("name", "revision", "model_type", "class"):
        if not isinstance(model.get(key), str):
            raise ConfigError(f"model: {key} must be a text, got {model.get(key)!r}")
    if not isinstance(model.get("n_params"), int):
        raise ConfigError(f"model: n_params must be a number, got {model.get('n_params')!r}")
    return Checkpoint(
        where=folder,
        architecture=Architecture.from_dict(data["architecture"]),
        model=model,
        shapes={str(place): tuple(int(n) for n in shape) for place, shape in data["shapes"].items()},
        task=dict(data.get("task") or {}),
    )


def load_base(checkpoint: Checkpoint, **options: Any) -> LoadedBackbone:
    """Load the backbone that a folder was saved from; `options` are those of `load_backbone`.

    Raises:
        CheckpointError: It is no model for sequence classification, or its weights are other ones now.
        BackboneError: It cannot be found or loaded.
    """
    facts = checkpoint.model
    name, revision = str(facts["name"]), str(facts["revision"])
    if not str(facts["class"]).endswith(_HEADED) or not name:
        raise CheckpointError(
            f"{checkpoint.where}: was saved from a {facts['class']} {name or 'without a name'}; load that model "
            "yourself and give it: peftsearch.load(model, directory)"
        )
    if name.startswith("."):
        name = str(checkpoint.where / name)
    commit = None if revision.startswith("sha256:") else revision or None
    num_labels, problem_type = int(facts.get("num_labels") or 2), facts.get("problem_type")
    loaded = load_backbone(name, num_labels=num_labels, problem_type=problem_type, revision=commit, **options)
    if revision and loaded.backbone.revision and revision != loaded.backbone.revision:
        raise CheckpointError(
            f"{checkpoint.where}: was trained on {name} at {revision}, which is {loaded.backbone.revision} now; "
            "get the weights it was trained on"
        )
    return loaded


def read_tensors(checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    """The tensors of a folder by their names in the model.

    Raises:
        CheckpointError: There are none, or only pickled ones, or the file is damaged.
    """
    folder = checkpoint.where
    if not (folder / WEIGHTS).is_file():
        pickles = sorted(p.name for p in folder.iterdir() if p.suffix in (".bin", ".pt", ".pth", ".ckpt", ".pkl"))
        told = f"; {pickles[0]} is a pickle, which can run code, and is not read" if pickles else ""
        raise CheckpointError(f"{folder}: has no {WEIGHTS}{told}; save it again with peftsearch.save")
    try:
        return read_state(folder / WEIGHTS)
    except MethodError as error:
        raise CheckpointError(str(error)) from error


def _require_same_model(checkpoint: Checkpoint, backbone: Backbone) -> None:
    there, mismatch = checkpoint.model, first_mismatch(checkpoint.shapes, list_shapes(backbone))
    if there["model_type"] != backbone.model_type:
        mismatch = f"it is a {there['model_type']} there and this model is a {backbone.model_type}"
    elif mismatch is None and there["n_params"] != backbone.n_params:
        mismatch = f"the backbone has {there['n_params']:,} parameters there and {backbone.n_params:,} in this model"
    if mismatch:
        raise CheckpointError(f"{checkpoint.where}: belongs to another model: {mismatch}")


def _check_head(
    checkpoint: Checkpoint, values: Mapping[str, torch.Tensor], model: nn.Module, backbone: Backbone
) -> None:
    """Say what is wrong with the head in its own words; everything else is left to `set_state`."""
    saved = {name: value for name, value in values.items() if not name.startswith(f"{injection.NAME}.")}
    own = {f"{at}.{name}": p for at in backbone.head for name, p in model.get_submodule(at).named_parameters()}
    if saved and not own:
        first = next(iter(saved))
        raise CheckpointError(
            f"{checkpoint.where}: holds a head ({first}) and this {type(model).__name__} has none; load the model "
            f"with its head, as {checkpoint.model['class']}"
        )
    for name, parameter in own.items():
        if name not in saved:
            raise CheckpointError(f"{checkpoint.where}: its head lacks {name}; save it from a model with that head")
        if saved[name].shape != parameter.shape:
            there, here = tuple(saved[name].shape), tuple(parameter.shape)
            raise CheckpointError(
                f"{checkpoint.where}: the head's {name} has shape {there} there and {here} in this model; load it "
                f"with num_labels={checkpoint.model.get('num_labels')}"
            )
