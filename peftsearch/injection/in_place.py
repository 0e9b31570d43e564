"""In-place training of a model's own weights, which are restored afterwards."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


@contextmanager
def in_place(model: nn.Module, modules: Sequence[str] = ("",)) -> Iterator[None]:
    """Make the parameters of some modules trainable and freeze all others; restore values and flags at the end.

    The trained parameters are copies in float32 at least, whatever type the model keeps its weights in: steps of small
    rates would be lost to the rounding of a narrower one. The model's own are kept meanwhile.

    Args:
        model: A model with no architecture in it.
        modules: Paths of the modules; the empty one is the whole model.
    """
    chosen = {id(p) for path in modules for p in model.get_submodule(path).parameters()}
    flags = [(p, p.requires_grad) for p in model.parameters()]
    before = [(p, p.data) for p in model.parameters() if id(p) in chosen]
    for parameter, own in before:
        parameter.data = own.to(torch.promote_types(own.dtype, torch.float32), copy=True)
    for parameter, _ in flags:
        parameter.requires_grad_(id(parameter) in chosen)
    try:
        yield
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
            parameter.grad = None
        for parameter, own in before:
            parameter.data = own


def in_place_groups(model: nn.Module, lr: float) -> list[dict[str, Any]]:
    """AdamW's parameter groups inside `in_place`: a single group, without weight decay."""
    params = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [{"name": "weights", "params": params, "lr": lr, "weight_decay": 0.0}]
