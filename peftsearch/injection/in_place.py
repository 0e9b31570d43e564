"""Training a model's own weights: they are made trainable where they are, and the model gets them back afterwards."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


@contextmanager
def in_place(model: nn.Module, modules: Sequence[str] = ("",)) -> Iterator[None]:
    """Train the parameters of some modules and freeze all others; afterwards values and flags are as before.

    A copy of what is trained is kept meanwhile.

    Args:
        model: A model with no architecture in it.
        modules: Paths of the modules; the empty one is the whole model.
    """
    chosen = {id(p) for path in modules for p in model.get_submodule(path).parameters()}
    flags = [(p, p.requires_grad) for p in model.parameters()]
    before = [(p, p.detach().clone()) for p in model.parameters() if id(p) in chosen]
    for parameter, _ in flags:
        parameter.requires_grad_(id(parameter) in chosen)
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, value in before:
                parameter.copy_(value)
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
            parameter.grad = None


def in_place_groups(model: nn.Module, lr: float) -> list[dict[str, Any]]:
    """AdamW's parameter groups inside `in_place`: one at one rate, without weight decay."""
    params = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [{"name": "weights", "params": params, "lr": lr, "weight_decay": 0.0}]
