"""Prepare a model for one seed, for the trials of a search and for full training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from peftsearch.backbone.load import LoadedBackbone, reset_head
from peftsearch.design.architecture import Architecture
from peftsearch.design.references import Reference
from peftsearch.engine.priming import N_BATCHES, needs_priming, prime
from peftsearch.engine.probe import HeadStart, put_head
from peftsearch.engine.settings import TrainingSettings
from peftsearch.injection.in_place import in_place, in_place_groups
from peftsearch.injection.inject import inject, param_groups
from peftsearch.tasks.encoding.batches import batches
from peftsearch.tasks.encoding.encoded import EncodedSplit

Trains = Architecture | Reference
"""An architecture that is put into the model, or weights of the model itself."""


@contextmanager
def ready(
    loaded: LoadedBackbone,
    what: Trains,
    data: EncodedSplit,
    *,
    seed: int,
    batch_size: int,
    loss_of: Callable[[Tensor, Tensor], Tensor],
    device: torch.device,
    autocast: torch.dtype | None,
    choose: bool = True,
    head: HeadStart | None = None,
) -> Iterator[nn.Module]:
    """Prepare the model as a seed begins with it; afterwards it is as it was before, bit for bit.

    Args:
        loaded: The model.
        what: What is trained.
        data: Training examples, by which some methods choose what they train.
        seed: Seed of the initial values, of the head and of these examples.
        batch_size: Examples per batch.
        loss_of: Loss of logits and labels.
        device: Where the model is.
        autocast: Reduced precision of the forward pass, or None.
        choose: Whether methods choose what they train; a snapshot that is put in afterwards has their choice.
        head: The values that the head starts from; None draws them by the seed.
    """
    with _inside(loaded, what, seed):
        begin(
            loaded,
            data,
            seed=seed,
            batch_size=batch_size,
            loss_of=loss_of,
            device=device,
            autocast=autocast,
            choose=choose,
            head=head,
        )
        yield loaded.model


def begin(
    loaded: LoadedBackbone,
    data: EncodedSplit,
    *,
    seed: int,
    batch_size: int,
    loss_of: Callable[[Tensor, Tensor], Tensor],
    device: torch.device,
    autocast: torch.dtype | None,
    choose: bool = True,
    head: HeadStart | None = None,
) -> None:
    """Set the head of a model with its architecture in it, and let methods choose what they train.

    Args:
        loaded: The model.
        data: Training examples, by which some methods choose what they train.
        seed: Seed of the head and of these examples.
        batch_size: Examples per batch.
        loss_of: Loss of logits and labels.
        device: Where the model is.
        autocast: Reduced precision of the forward pass, or None.
        choose: Whether methods choose what they train; a snapshot that is put in afterwards has their choice.
        head: The values that the head starts from; None draws them by the seed.
    """
    if head is None:
        reset_head(loaded.model, loaded.backbone, seed)
    else:
        put_head(loaded.model, head)
    if choose and needs_priming(loaded.model):
        prime(
            loaded.model,
            batches(data, batch_size, seed=seed, steps=N_BATCHES),
            loss_of=loss_of,
            device=device,
            autocast=autocast,
        )


def groups_of(loaded: LoadedBackbone, what: Trains, settings: TrainingSettings) -> list[dict[str, Any]]:
    """AdamW's parameter groups of a model that is ready; none has weight decay."""
    if isinstance(what, Reference):
        return in_place_groups(loaded.model, settings.learning_rate)
    return param_groups(loaded.model, settings.learning_rate, settings.head_learning_rate)


def _inside(loaded: LoadedBackbone, what: Trains, seed: int) -> AbstractContextManager[object]:
    if isinstance(what, Reference):
        return in_place(loaded.model, what.modules)
    return inject(loaded.model, what, loaded.backbone, seed=seed)
