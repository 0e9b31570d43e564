"""Folding what was trained into the backbone's weights for a while."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from peftsearch.backbone.private_torch import hide_forward_hooks, hook_owners
from peftsearch.injection.inject import injection_of
from peftsearch.methods.abilities import Foldable, FoldAware


@contextmanager
def merged(model: nn.Module) -> Iterator[None]:
    """Fold what can be folded into the backbone's weights while the `with` block lasts.

    Placements of methods that merge become part of the weights and cost nothing at inference; the others, and those on
    packed weights, stay as they are. A hook behind one that stays is not folded, since hooks act in their order.
    Afterwards the model is as it was before, bit for bit: the weights before are kept, not recomputed.

    Raises:
        MethodError: The model carries no architecture.
    """
    ours = set(injection_of(model).injected.modules())
    put_back: list[Callable[[], None]] = []
    weights: list[tuple[nn.Parameter, torch.Tensor]] = []
    aware: list[FoldAware] = []
    try:
        for module in model.modules():
            done: set[int] = set()
            for key, owner, values in _folds(module, ours):
                for name, value in values.items():
                    parameter = module.get_parameter(name)
                    weights.append((parameter, parameter.data))
                    parameter.data = value
                if isinstance(owner, FoldAware):
                    aware.append(owner)
                    owner.is_folded = True
                done.add(key)
            if done:
                put_back.append(hide_forward_hooks(module, done))
        yield
    finally:
        for restore in put_back:
            restore()
        for each in aware:
            each.is_folded = False
        for parameter, value in reversed(weights):
            parameter.data = value


def _folds(module: nn.Module, ours: set[nn.Module]) -> Iterator[tuple[int, Foldable, dict[str, torch.Tensor]]]:
    """The first hooks of a module as long as they are ours and fold: key, owner, and the parameters they make."""
    for key, owner in hook_owners(module).items():
        if owner not in ours or not isinstance(owner, Foldable):
            return
        with torch.no_grad():
            values = owner.fold(module)
        if values is None:
            return
        yield key, owner, values
