"""Tensor operations on linear maps and on slices of fused maps, and hooks on outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import torch
from torch import nn
from torch.nn import functional
from torch.utils.hooks import RemovableHandle

from peftsearch.backbone.anatomy import Projection
from peftsearch.methods.projections import Margins

Hook = Callable[[nn.Module, tuple[torch.Tensor, ...], torch.Tensor], torch.Tensor]


class Located(Protocol):
    """A part of a block that is a module of the model."""

    @property
    def path(self) -> str:
        """Dotted path of the module."""


def slice_rows(projection: Projection) -> slice | torch.Tensor:
    """Index of the module's outputs that belong to a projection."""
    if projection.n_pieces == 1:
        return slice(projection.start, projection.start + projection.d_out)
    pieces = torch.arange(projection.d_module).view(projection.n_pieces, -1)  # (n_pieces, d_piece)
    width = projection.d_out // projection.n_pieces
    return pieces[:, projection.start : projection.start + width].flatten()


def widen(values: torch.Tensor, margins: Margins | None) -> torch.Tensor:
    """Pad values of a slice `(..., d_slice)` with zeros to the module's output `(..., d_module)`.

    With three heads and n_pieces = 3, the key's slice of q0 k0 v0 q1 k1 v1 q2 k2 v2 becomes 0 k0 0 0 k1 0 0 k2 0.
    """
    if margins is None:
        return values
    pieces = values.reshape(*values.shape[:-1], margins.n_pieces, -1)  # (..., n_pieces, d_piece)
    return functional.pad(pieces, (margins.front, margins.behind)).flatten(-2)


def add_delta(output: torch.Tensor, delta: torch.Tensor, margins: Margins | None) -> torch.Tensor:
    """Add a delta to a module's output, or to a slice of it, in the output's dtype.

    Args:
        output: `(..., d_module)`, left unchanged.
        delta: `(..., d_slice)`, or anything that broadcasts to it.
        margins: See `slice_margins`.

    Returns:
        `(..., d_module)`
    """
    return output + widen(delta, margins).to(output.dtype)


def folded(parameter: torch.Tensor, delta: torch.Tensor) -> torch.Tensor | None:
    """A parameter plus a delta of its shape, in the parameter's dtype; None where it is packed (quantised)."""
    if not parameter.is_floating_point() or parameter.shape != delta.shape:
        return None
    wide = torch.promote_types(parameter.dtype, delta.dtype)
    return (parameter.to(wide) + delta.to(wide)).to(parameter.dtype)


def fold_weight(module: nn.Module, delta: torch.Tensor, margins: Margins | None) -> dict[str, torch.Tensor] | None:
    """A map's weight plus a delta `(d_out, d_in)` in its slice, in the form of `Foldable.fold`; None where packed."""
    delta = widen(delta.t(), margins).t()  # (d_module, d_in)
    # transformers' Conv1D keeps its weight as (d_in, d_module).
    weight = folded(module.get_parameter("weight"), delta if isinstance(module, nn.Linear) else delta.t())
    return None if weight is None else {"weight": weight}


def hook_outputs(model: nn.Module, hooks: Mapping[str, tuple[str, Hook]]) -> list[Callable[[], object]]:
    """Register forward hooks, after looking up all modules.

    The hooks are bound methods of modules and never closures, so that a deep copy of the model has its own hooks.

    Args:
        model: The model that the paths start from.
        hooks: For each name the path of a module and the hook for it.

    Returns:
        Calls that remove the hooks.
    """
    found = [(model.get_submodule(path), hook) for path, hook in hooks.values()]
    handles: list[RemovableHandle] = [module.register_forward_hook(hook) for module, hook in found]
    return [handle.remove for handle in handles]


def hook_forwards(
    model: nn.Module, targets: Mapping[str, Located], modules: nn.ModuleDict
) -> list[Callable[[], object]]:
    """Hook the `forward` of each module on the target of the same name; returns calls that remove the hooks."""
    return hook_outputs(model, {name: (targets[name].path, each.forward) for name, each in modules.items()})
