"""Reduction of a trained architecture: parts that only training needs, such as P-tuning's encoder, are dropped."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from peftsearch.design.architecture import Architecture
from peftsearch.injection.inject import NAME, inject, injection_of, remove
from peftsearch.injection.states import set_state, state
from peftsearch.methods import get_method
from peftsearch.methods.abilities import Reducible


def reduced_state(model: nn.Module, only: type = Reducible) -> tuple[Architecture, dict[str, torch.Tensor]]:
    """Compute what `reduce` would put into the model; the model stays as it is.

    Args:
        model: A model with an architecture in it.
        only: Protocol that a method must meet for its placements to be reduced.

    Returns:
        The architecture and its trained state.

    Raises:
        MethodError: The model carries no architecture.
    """
    injected = injection_of(model).injected
    values, placements = state(model), []
    placed = {(p.stack, p.block, p.method) for p in injected.architecture.placements}
    blocks = {(block.stack, block.index): block for block in injected.backbone.blocks}
    for p in injected.architecture.placements:
        method, key = get_method(p.method), p.key
        if (
            isinstance(method, Reducible)
            and isinstance(method, only)
            and (p.stack, p.block, method.becomes) not in placed
        ):
            block, smaller = blocks[p.stack, p.block], get_method(method.becomes)
            kept, size = method.reduced(injected[key], block), method.reduced_size(block, p.size)
            values = {name: value for name, value in values.items() if not name.startswith(f"{NAME}.{key}.")}
            p = replace(p, method=smaller.name, size=size, n_params=smaller.count(block, size))
            placed.add((p.stack, p.block, p.method))
            values |= {f"{NAME}.{p.key}.{name}": value.detach().clone() for name, value in kept.items()}
        placements.append(p)
    return Architecture(placements=tuple(placements)), values


def reduce(model: nn.Module) -> Architecture:
    """Drop the parts that only training needs: placements become those of the corresponding smaller methods.

    The encoder of P-tuning, the decoder of intrinsic prompt tuning and the network of a reparametrised prefix are
    evaluated once and replaced by their output; AdaMix keeps the mean of its adapters, DiffPruning the differences that
    survive pruning. A placement stays as it is if its block already has a placement of the smaller method.

    Args:
        model: A model with an architecture in it; its output in evaluation mode stays the same up to rounding.

    Returns:
        The architecture that the model carries now: with fewer parameters, or the same if there was nothing to drop.

    Raises:
        MethodError: The model carries no architecture.
    """
    injected = injection_of(model).injected
    architecture, values = reduced_state(model)
    if architecture == injected.architecture:
        return architecture
    flags, head, task = injected.flags, injected.head, injected.task
    remove(model)
    carried = inject(model, architecture, injected.backbone).injected
    carried.flags, carried.head, carried.task = flags, head, task
    set_state(model, values)
    return architecture
