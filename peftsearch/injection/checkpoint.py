"""Checkpoints: saved folders with the trained parameters and the facts of the model they belong to.

`peftsearch.yaml` holds the architecture, the backbone (name, revision, shapes) and the task; `peftsearch.safetensors`
holds the injected parameters and the head, bit for bit. The backbone's own weights are not saved.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from torch import nn

from peftsearch.backbone.anatomy import Backbone
from peftsearch.backbone.detect import detect
from peftsearch.backbone.folder import hub_commit, lasting_name
from peftsearch.backbone.load import LoadedBackbone, load_backbone
from peftsearch.backbone.private_transformers import commit_of
from peftsearch.backbone.quantised import quantisation_of
from peftsearch.design.architecture import Architecture
from peftsearch.errors import CheckpointError, ConfigError, MethodError
from peftsearch.files import MAX_OUTPUT_BYTES, from_plain, read_yaml, staged, to_plain, write_state
from peftsearch.injection.inject import NAME, Injection, inject, injection_of, remove
from peftsearch.injection.reducing import reduced_state
from peftsearch.injection.shapes import Shapes, fingerprint_shapes, first_mismatch, list_shapes
from peftsearch.injection.states import pack, read_state, set_state, state
from peftsearch.methods import get_method
from peftsearch.methods.abilities import Borrowing

FACTS = "peftsearch.yaml"
WEIGHTS = "peftsearch.safetensors"
FORMAT = "peftsearch-checkpoint/2"
_TAGS = "ForTokenClassification"
_HEADED = ("ForSequenceClassification", "ForImageClassification", _TAGS)
_GENERATES = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")


@dataclass(frozen=True, kw_only=True, slots=True)
class SavedModel:
    """The backbone that a folder was saved from."""

    name: str
    """Hub id or folder; one that begins with a dot is relative to the saved folder."""
    revision: str
    """Commit or fingerprint of the weights; empty when unknown."""
    model_type: str
    """transformers' name of the family."""
    model_class: str
    """Name of the model's class."""
    n_params: int
    quantize: str | None = None
    """How the weights were packed; None when they were not."""
    stacks: dict[str, int] = field(default_factory=dict)
    """Blocks of each stack."""
    shapes: str = ""
    """Digest of the widths."""
    num_labels: int | None = None
    problem_type: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointFile:
    """The content of `peftsearch.yaml`."""

    format: Literal["peftsearch-checkpoint/2"] = "peftsearch-checkpoint/2"
    model: SavedModel
    task: dict[str, Any] = field(default_factory=dict)
    """Facts of the task, where known: name, kind, labels, metric."""
    architecture: dict[str, Any]
    """The architecture, as `Architecture.to_dict` gives it."""
    shapes: dict[str, tuple[int, ...]]
    """The widths of the backbone's maps and norms."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """The facts in a saved folder, excluding the tensors."""

    where: Path
    """Path of the folder."""
    architecture: Architecture
    model: SavedModel
    shapes: Shapes
    """The widths of the backbone's maps and norms."""
    task: dict[str, Any] = field(default_factory=dict)
    """Facts of the task, where known: name, kind, labels, metric."""


def write_checkpoint(
    carried: Injection, folder: Path, task: Mapping[str, Any], base: str = "", *, alone: bool = False
) -> None:
    """Write the trained parameters of an injected model into an empty folder.

    Args:
        carried: The architecture in its model.
        folder: The folder for the two files.
        task: Facts of the task, where known.
        base: Where to find the backbone; empty for the name that it was loaded by.
        alone: Whether placements that are made from a file of the user are reduced, so that the folder is enough.
    """
    architecture, values = carried.architecture, state(carried.model)
    if alone:
        architecture, values = reduced_state(carried.model, Borrowing)
        left = next((p for p in architecture.placements if isinstance(get_method(p.method), Borrowing)), None)
        if left is not None:
            raise CheckpointError(
                f"{left.method} is saved as a prompt, and {left.stack} block {left.block} has one already; tune one of "
                "the two"
            )
    content = CheckpointFile(
        model=_model_facts(carried, base),
        task=dict(task),
        architecture=architecture.to_dict(),
        shapes={place: tuple(shape) for place, shape in list_shapes(carried.backbone).items()},
    )
    write_state(pack(values), folder / WEIGHTS)
    text = yaml.safe_dump(to_plain(content), sort_keys=False, width=120, allow_unicode=True, default_flow_style=None)
    (folder / FACTS).write_text(text, encoding="utf-8")


def _model_facts(carried: Injection, base: str) -> SavedModel:
    model: Any = carried.model
    backbone, config = carried.backbone, getattr(model, "config", None)
    return SavedModel(
        name=base or lasting_name(backbone.name),
        revision="" if base else backbone.revision,
        model_type=backbone.model_type,
        model_class=type(model).__name__,
        n_params=backbone.n_params,
        quantize=quantisation_of(model),
        stacks=backbone.depths,
        shapes=fingerprint_shapes(backbone),
        num_labels=getattr(config, "num_labels", None),
        problem_type=getattr(config, "problem_type", None),
    )


def read_checkpoint(directory: str | PathLike[str]) -> Checkpoint:
    """Read the facts of a saved folder.

    Raises:
        CheckpointError: The folder was not made by `save`, or is damaged.
    """
    folder = Path(directory)
    if not (folder / FACTS).is_file():
        what = "holds no checkpoint" if folder.is_dir() else "no such folder"
        raise CheckpointError(f"{folder}: {what} (no {FACTS}); give a folder made by peftsearch.save")
    try:
        data = read_yaml(folder / FACTS, MAX_OUTPUT_BYTES)
        if data.get("format") != FORMAT:
            raise CheckpointError(f"{folder / FACTS}: format is {data.get('format')!r}, this version reads {FORMAT!r}")
        content = from_plain(CheckpointFile, data, str(folder / FACTS), CheckpointError)
        architecture = Architecture.from_dict(content.architecture)
    except ConfigError as error:
        told = str(error).removeprefix(f"{folder / FACTS}: ")
        raise CheckpointError(f"{folder / FACTS}: is damaged: {told}") from error
    return Checkpoint(
        where=folder, architecture=architecture, model=content.model, shapes=content.shapes, task=content.task
    )


def load_base(checkpoint: Checkpoint, **options: Any) -> LoadedBackbone:
    """Load the backbone that a folder was saved from, packed as it was.

    Args:
        checkpoint: The folder.
        **options: Options of `load_backbone`.

    Raises:
        CheckpointError: The backbone is neither a classifier nor a language model, or its weights have changed.
        BackboneError: The backbone cannot be found or loaded.
    """
    facts = checkpoint.model
    name, revision = facts.name, facts.revision
    if not facts.model_class.endswith((*_HEADED, *_GENERATES)) or not name:
        raise CheckpointError(
            f"{checkpoint.where}: was saved from a {facts.model_class} {name or 'without a name'}; load that model "
            "yourself and pass it: peftsearch.load(model, directory)"
        )
    if name.startswith("."):
        name = str(checkpoint.where / name)
    num_labels, problem_type = labels_of(checkpoint)
    options = {"quantize": facts.quantize} | options
    loaded = load_backbone(
        name, num_labels=num_labels, problem_type=problem_type, revision=hub_commit(revision), **options
    )
    if revision and loaded.backbone.revision and revision != loaded.backbone.revision:
        raise CheckpointError(
            f"{checkpoint.where}: was trained on {name} at {revision}, which is {loaded.backbone.revision} now; "
            "get the weights it was trained on"
        )
    return loaded


def labels_of(checkpoint: Checkpoint) -> tuple[int, str | None]:
    """Number of outputs of the head, and the kind of problem, as `load_backbone` takes them."""
    if checkpoint.model.model_class.endswith(_GENERATES):
        return 0, "generation"
    if checkpoint.model.model_class.endswith(_TAGS):
        return checkpoint.model.num_labels or 2, "tagging"
    return checkpoint.model.num_labels or 2, checkpoint.model.problem_type


def read_tensors(checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    """The tensors of a folder by their names in the model.

    Raises:
        CheckpointError: The folder has no tensors, or only pickled ones, or the file is damaged.
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


def require_same_model(checkpoint: Checkpoint, backbone: Backbone) -> None:
    """Refuse a folder that belongs to another model, naming the first mismatch.

    Raises:
        CheckpointError: Family, blocks, widths or number of parameters differ.
    """
    there, mismatch = checkpoint.model, first_mismatch(checkpoint.shapes, list_shapes(backbone))
    if there.model_type != backbone.model_type:
        mismatch = f"it was saved from a {there.model_type} and this model is a {backbone.model_type}"
    elif mismatch is None and there.n_params != backbone.n_params:
        mismatch = f"the backbone has {there.n_params:,} parameters there and {backbone.n_params:,} in this model"
    if mismatch:
        raise CheckpointError(f"{checkpoint.where}: belongs to another model: {mismatch}")


def require_head(
    checkpoint: Checkpoint, values: Mapping[str, torch.Tensor], model: nn.Module, backbone: Backbone
) -> None:
    """Refuse a head that is missing on either side or has another size; `set_state` checks all other tensors.

    Raises:
        CheckpointError: A parameter of the head does not fit; names the first.
    """
    saved = {name: value for name, value in values.items() if not name.startswith(f"{NAME}.")}
    own = {f"{at}.{name}": p for at in backbone.head for name, p in model.get_submodule(at).named_parameters()}
    if saved and not own:
        first = next(iter(saved))
        raise CheckpointError(
            f"{checkpoint.where}: holds a head ({first}) and this {type(model).__name__} has none; load the model "
            f"with its head, as {checkpoint.model.model_class}"
        )
    for name, parameter in own.items():
        if name not in saved:
            raise CheckpointError(f"{checkpoint.where}: its head lacks {name}; save it from a model with that head")
        if saved[name].shape != parameter.shape:
            there, here = tuple(saved[name].shape), tuple(parameter.shape)
            raise CheckpointError(
                f"{checkpoint.where}: the head's {name} has shape {there} there and {here} in this model; load it "
                f"with num_labels={checkpoint.model.num_labels}"
            )


def identify(model: nn.Module) -> Backbone:
    """Detect a model's anatomy; the name and, where transformers keeps it, the commit come from the config."""
    if hasattr(model, NAME):
        return injection_of(model).backbone
    config = getattr(model, "config", None)
    return detect(model, str(getattr(config, "name_or_path", "") or ""), commit_of(config))


def save(
    model: nn.Module,
    directory: str | PathLike[str],
    *,
    overwrite: bool = False,
    task: Mapping[str, Any] | None = None,
    base: str = "",
) -> None:
    """Save the trained parameters of an injected model, with everything needed to restore them; whole or not at all.

    A prompt in a subspace (`ipt`) is saved as the prompt that it is, so that no other file is needed.

    Args:
        model: A model with an architecture in it.
        directory: The folder to make.
        overwrite: Whether an earlier save in it may be replaced.
        task: Facts of the task (name, kind, labels, metric); None takes those known from `inject` and `load`.
        base: Where to find the backbone; empty for the name that it was loaded by.

    Raises:
        MethodError: The model carries no architecture.
        CheckpointError: The folder exists, or cannot be written.
    """
    carried = injection_of(model)
    with staged(Path(directory), overwrite) as stage:
        write_checkpoint(carried, stage, dict(task or carried.injected.task), base, alone=True)


def load(
    model: nn.Module | None,
    directory: str | PathLike[str],
    *,
    device: torch.device | str = "cpu",
    trust_remote_code: bool = False,
) -> Injection:
    """Load a saved folder into a model; an error leaves the model unchanged.

    Args:
        model: The backbone that the folder was saved from, with or without this architecture in it; None loads the
            backbone by its saved name.
        directory: A folder made by `save`.
        device: Device of a model that is loaded here.
        trust_remote_code: Whether code that comes with a hub model may run.

    Returns:
        The injection; its `model` is the model.

    Raises:
        CheckpointError: The folder was not made by `save`, is damaged, or belongs to another model.
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
    """Put the contents of a folder into a model; an error leaves the model unchanged.

    Raises:
        CheckpointError: The folder belongs to another model, or its parts do not belong together.
    """
    require_same_model(checkpoint, backbone)
    require_head(checkpoint, values, model, backbone)
    fresh = not hasattr(model, NAME)
    try:
        done = inject(model, checkpoint.architecture, backbone) if fresh else injection_of(model)
        if done.architecture != checkpoint.architecture:
            raise CheckpointError(f"{checkpoint.where}: the model carries another architecture; remove(model) first")
        set_state(model, values)
    except MethodError as error:
        if fresh and hasattr(model, NAME):
            remove(model)
        raise CheckpointError(f"{checkpoint.where}: {error}") from error
    done.injected.task = dict(checkpoint.task)
    return done
