"""Temporary folding of the trained parameters into the backbone's weights."""

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
    """Fold all foldable placements into the backbone's weights while the `with` block lasts.

    Placements of methods that merge become part of the weights and cost nothing at inference; the others, and those on
    packed weights, stay as they are. A hook that follows an unfolded one is not folded, since hooks act in order.
    Afterwards the model is restored bit for bit: the original weights are kept, not recomputed.

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
    """The leading hooks of a module that are ours and can be folded: key, owner, and the folded parameters."""
    for key, owner in hook_owners(module).items():
        if owner not in ours or not isinstance(owner, Foldable):
            return
        with torch.no_grad():
            values = owner.fold(module)
        if values is None:
            return
        yield key, owner, values
