"""The layers of LoRA; `peftsearch.methods.lora` names the paper and the equations."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import nn
from torch.nn import functional

from peftsearch.backbone.anatomy import Projection
from peftsearch.methods.layers.attachment import Attachment
from peftsearch.methods.layers.projections import add_delta, fold_weight, hook_forwards
from peftsearch.methods.projections import margins_of


class LowRank(nn.Module):
    """The pair A, B of one projection; `forward` is the hook on the projection's module."""

    def __init__(self, projection: Projection, rank: int, scaling: float) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.empty(rank, projection.d_in))
        self.b = nn.Parameter(torch.zeros(projection.d_out, rank))
        self.scaling = scaling
        self.margins = margins_of(projection)
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))

    def forward(self, module: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        """Add scaling * B A x (2106.09685 eq. 3).

        Args:
            module: The projection's module.
            args: Its input `(..., d_in)`.
            output: Its output `(..., d_module)`.

        Returns:
            `(..., d_module)`
        """
        low = functional.linear(args[0].to(self.a.dtype), self.a)  # (..., rank)
        if self.margins is not None or low.dtype != output.dtype:
            return add_delta(output, functional.linear(low, self.b) * self.scaling, self.margins)
        # One fused kernel instead of product, scaling and sum: no delta of the output's size is ever stored.
        flat = torch.addmm(output.flatten(0, -2), low.flatten(0, -2), self.b.t(), alpha=self.scaling)
        return flat.view(output.shape)

    def fold(self, module: nn.Module) -> dict[str, torch.Tensor] | None:
        """W_0 + s B A, in the slice of a fused map alone; see `Foldable`."""
        return fold_weight(module, self.scaling * self.b @ self.a, self.margins)


def attach(model: nn.Module, targets: Mapping[str, Projection], rank: int, scaling: float) -> Attachment:
    """Hook an A, B pair on every target."""
    pairs = nn.ModuleDict({name: LowRank(projection, rank, scaling) for name, projection in targets.items()})
    return Attachment(module=pairs, undo=hook_forwards(model, targets, pairs))


def share(first: nn.Module, module: nn.Module, name: str) -> None:
    """Use the A (or B) of the first placement's pairs in another placement's pairs, map by map.

    Args:
        first: The pairs by target, as `attach` makes them.
        module: The pairs of another block.
        name: `a` or `b`.
    """
    for target, pair in module.named_children():
        setattr(pair, name, getattr(first.get_submodule(target), name))
