"""A model's anatomy from its config alone, built on torch's meta device without reading or allocating weights.

Left out: facts that only the weight files hold, such as their dtype or quantisation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from peftsearch.backbone.anatomy import Backbone, Weights
from peftsearch.backbone.auto import has_classifier, model_class, reads_images
from peftsearch.backbone.demo import DEMO
from peftsearch.backbone.describe import describe
from peftsearch.backbone.detect import detect
from peftsearch.backbone.folder import demo_folder, find_folder
from peftsearch.backbone.load import _explain, _is_hub_reachable, n_positions
from peftsearch.backbone.maps import count_params, widths
from peftsearch.backbone.private_transformers import attention_of
from peftsearch.backbone.quantised import maps_to_pack
from peftsearch.backbone.quiet import quiet
from peftsearch.backbone.subspace import with_subspace
from peftsearch.errors import BackboneError
from peftsearch.options import ModelOptions, TunedModelOptions


@dataclass(frozen=True, kw_only=True, slots=True)
class Outline:
    """Facts of a model that its config gives."""

    backbone: Backbone
    weights: Weights
    """Counts of parameters, including the head's."""
    n_head: int
    """Number of parameters of the head."""
    n_positions: int | None
    """Number of tokens that the model has positions for; None where there is no limit."""
    reads_images: bool
    """Whether the model takes images, each of which has `n_positions` tokens."""
    n_tokens: int
    """Number of tokens of the vocabulary; 0 without one."""
    attention: str
    """Attention implementation that transformers chooses for the model: `sdpa`, `eager`."""


def read_outline(options: ModelOptions, kind: str | None = None) -> Outline:
    """Read the outline of a model; a folder needs only `config.json`.

    Args:
        options: Name, revision and description of the model; no name, `demo` and `minilm` mean the embedded MiniLM-L6.
        kind: `generation` builds the language model and `tagging` and
            `question_answering` a head on every token; all others a classifier.

    Raises:
        BackboneError: There is no config, it does not describe a model, or the model cannot be read.
        ConfigError: The user's description is malformed.
    """
    name = DEMO if options.name in (None, "demo") else str(options.name)
    folder = demo_folder() if name == DEMO else find_folder(name)
    loading: dict[str, Any] = {"trust_remote_code": options.trust_remote_code}
    if folder is None:
        loading |= {"revision": options.revision, "local_files_only": not _is_hub_reachable()}
    elif not (folder / "config.json").is_file():
        raise BackboneError(f"model {name!r}: the folder has no config.json; an estimate needs that file and no other")
    model = _build(name, str(folder or name), loading, kind)
    by_hand = options.anatomy
    backbone = detect(model, name) if by_hand is None else describe(model, by_hand, name)
    if isinstance(options, TunedModelOptions) and options.subspace is not None:
        backbone = with_subspace(backbone, options.subspace)
    return Outline(
        backbone=backbone,
        weights=weights_of(model),
        n_head=sum(count_params(model.get_submodule(path)) for path in backbone.head),
        n_positions=n_positions(model),
        reads_images=reads_images(model),
        n_tokens=int(getattr(model.config.get_text_config(), "vocab_size", 0) or 0),
        attention=attention_of(model.config) or "eager",
    )


def preview(options: ModelOptions) -> Backbone | None:
    """A model's anatomy before loading; None where the config alone does not give it (a GGUF file, a fault).

    A fault is not reported here, since loading the model reports it with more detail.
    """
    try:
        return read_outline(options).backbone
    except BackboneError:
        return None


def weights_of(model: nn.Module) -> Weights:
    """Count a model's parameters, and list the maps that quantised loading would pack."""
    return Weights(n_params=count_params(model), maps=tuple(widths(module) for module in maps_to_pack(model).values()))


def _build(name: str, source: str, options: dict[str, Any], kind: str | None) -> Any:
    """Build the model with the head that `run` gives it, or without a head where transformers has none for it."""
    from transformers import AutoConfig, AutoModel

    try:
        with quiet():
            config = AutoConfig.from_pretrained(source, **options)
            own = kind in ("generation", "tagging", "question_answering") or has_classifier(config)
            builder = model_class(name, config, kind) if own else AutoModel
            with torch.device("meta"):
                return builder.from_config(config, trust_remote_code=options["trust_remote_code"])
    except Exception as error:  # files from outside raise anything: OSError, ValueError, KeyError, TypeError
        raise BackboneError(f"model {name!r}: {_explain(error, options)}") from error
