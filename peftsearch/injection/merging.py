"""Folding what was trained into the backbone's weights for a while."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

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
    hooks: list[tuple[nn.Module, Any]] = []
    weights: list[tuple[nn.Parameter, torch.Tensor]] = []
    aware: list[FoldAware] = []
    try:
        for module in model.modules():
            left = OrderedDict(module._forward_hooks)
            for key, owner, values in _folds(module, ours):
                for name, value in values.items():
                    parameter = module.get_parameter(name)
                    weights.append((parameter, parameter.data))
                    parameter.data = value
                if isinstance(owner, FoldAware):
                    aware.append(owner)
                    owner.is_folded = True
                del left[key]
            if len(left) < len(module._forward_hooks):
                # Another mapping in place of the hooks' own: their handles still find the first, in its order.
                hooks.append((module, module._forward_hooks))
                module._forward_hooks = left
        yield
    finally:
        for module, before in hooks:
            module._forward_hooks = before
        for each in aware:
            each.is_folded = False
        for parameter, value in reversed(weights):
            parameter.data = value


def _folds(module: nn.Module, ours: set[nn.Module]) -> Iterator[tuple[int, Foldable, dict[str, torch.Tensor]]]:
    """The first hooks of a module as long as they are ours and fold: key, owner, and the parameters they make."""
    for key, hook in module._forward_hooks.items():
        owner = getattr(hook, "__self__", None)
        if owner not in ours or not isinstance(owner, Foldable):
            return
        with torch.no_grad():
            values = owner.fold(module)
        if values is None:
            return
        yield key, owner, values
