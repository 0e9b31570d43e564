"""Prepare a model for one seed, for the trials of a search and for full training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from peftsearch.backbone.load import LoadedBackbone, reset_head
from peftsearch.design.architecture import Architecture
from peftsearch.design.references import Reference
from peftsearch.engine.priming import N_BATCHES, needs_priming, prime
from peftsearch.engine.probe import HeadStart, put_head
from peftsearch.engine.settings import TrainingSettings
from peftsearch.errors import ConfigError
from peftsearch.injection.in_place import in_place, in_place_groups
from peftsearch.injection.inject import inject, param_groups
from peftsearch.tasks.encoding.batches import batches
from peftsearch.tasks.encoding.encoded import EncodedSplit

Trains = Architecture | Reference
"""An architecture that is put into the model, or weights of the model itself."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Start:
    """How a seed begins with a model."""

    loaded: LoadedBackbone
    """The model."""
    data: EncodedSplit
    """Training examples, by which some methods choose what they train."""
    seed: int
    """Seed of the initial values, of the head and of these examples."""
    batch_size: int
    """Examples per batch."""
    loss_of: Callable[[Tensor, Tensor], Tensor]
    """Loss of logits and labels."""
    device: torch.device
    """Where the model is."""
    autocast: torch.dtype | None
    """Reduced precision of the forward pass, or None."""
    choose: bool = True
    """Whether methods choose what they train; a snapshot that is put in afterwards has their choice."""
    head: HeadStart | None = None
    """The values that the head starts from; None draws them by the seed."""


@contextmanager
def ready(what: Trains, start: Start) -> Iterator[nn.Module]:
    """Prepare the model as a seed begins with it; afterwards it is as it was before, bit for bit.

    Args:
        what: What is trained.
        start: How the seed begins.
    """
    with _inside(start.loaded, what, start.seed):
        begin(start)
        yield start.loaded.model


def begin(start: Start) -> None:
    """Set the head of a model with its architecture in it, and let methods choose what they train."""
    model = start.loaded.model
    if start.head is None:
        reset_head(model, start.loaded.backbone, start.seed)
    else:
        put_head(model, start.head)
    if start.choose and needs_priming(model):
        prime(
            model,
            batches(start.data, start.batch_size, seed=start.seed, steps=N_BATCHES),
            loss_of=start.loss_of,
            device=start.device,
            autocast=start.autocast,
        )


def groups_of(loaded: LoadedBackbone, what: Trains, settings: TrainingSettings) -> list[dict[str, Any]]:
    """AdamW's parameter groups of a model that is ready; none has weight decay."""
    if isinstance(what, Reference):
        return in_place_groups(loaded.model, settings.learning_rate)
    return param_groups(loaded.model, settings.learning_rate, settings.head_learning_rate)


def check_checkpointing(settings: TrainingSettings, loaded: LoadedBackbone) -> None:
    """Refuse settings that compute blocks anew where the model cannot.

    Raises:
        ConfigError: transformers has no gradient checkpointing for the model.
    """
    if settings.gradient_checkpointing and not getattr(loaded.model, "supports_gradient_checkpointing", False):
        raise ConfigError(
            f"--gradient-checkpointing: transformers has none for {loaded.backbone.model_type}; leave it out"
        )


@contextmanager
def checkpointing(model: nn.Module, wanted: bool) -> Iterator[None]:
    """Compute blocks anew in the backward pass while the context lasts.

    The kind without reentrance keeps no parameter out: a block whose inputs need no gradient trains what it holds.
    """
    if not wanted:
        yield
        return
    library: Any = model
    enable = getattr(library, "activation_checkpointing_enable", None) or library.gradient_checkpointing_enable
    enable({"use_reentrant": False})
    library.disable_input_require_grads()  # for the reentrant kind; here it would be work down to the embeddings
    try:
        yield
    finally:
        (getattr(library, "activation_checkpointing_disable", None) or library.gradient_checkpointing_disable)()


def _inside(loaded: LoadedBackbone, what: Trains, seed: int) -> AbstractContextManager[object]:
    if isinstance(what, Reference):
        return in_place(loaded.model, what.modules)
    return inject(loaded.model, what, loaded.backbone, seed=seed)
