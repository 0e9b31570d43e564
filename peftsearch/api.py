"""A found architecture in a user's own code: put into a model, saved with what was trained, and loaded again."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import nn

from peftsearch import injection
from peftsearch.backbone.anatomy import Backbone
from peftsearch.backbone.detect import detect
from peftsearch.checkpoint import (
    Checkpoint,
    load_base,
    read_checkpoint,
    read_tensors,
    require_head,
    require_same_model,
    write_checkpoint,
)
from peftsearch.design.architecture import Architecture
from peftsearch.errors import CheckpointError, ConfigError, MethodError
from peftsearch.files import staged
from peftsearch.found import Source, read_found, require_same_backbone
from peftsearch.injection import Injection, injection_of
from peftsearch.states import set_state


def inject(
    model: nn.Module,
    architecture: Architecture | Source,
    backbone: Backbone | None = None,
    seed: int = 0,
    design: str | None = None,
) -> Injection:
    """Freeze a model and put an architecture into it; the parameters of its head stay trainable.

    Args:
        model: A transformers model, without an architecture in it.
        architecture: What to put in: an `Architecture`, a run's folder, its `best.yaml`, or the mapping in that.
        backbone: The model's anatomy; None detects it.
        seed: Seed of the initial values. The global random generators are left as they are.
        design: Name of another confirmed design of a run than its pick: `trial 14`, `lora`.

    Returns:
        The injection; its `remove()` restores the model bit for bit.

    Raises:
        ConfigError: The source cannot be read.
        MethodError: The model carries an architecture already, or this one was found on another kind of model.
        BackboneError: The model is not understood.
    """
    backbone = identify(model) if backbone is None else backbone
    if isinstance(architecture, Architecture):
        if design is not None:
            raise ConfigError(f"design {design!r}: is one of a run; an Architecture is a design with its sizes already")
        return injection.inject(model, architecture, backbone, seed)
    found = read_found(architecture, design)
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
    with staged(Path(directory), overwrite) as stage:
        write_checkpoint(carried, stage, dict(task or carried.injected.task), base)


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
    require_same_model(checkpoint, backbone)
    require_head(checkpoint, values, model, backbone)
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
