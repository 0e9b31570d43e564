"""The layers of KronA; `peftsearch.methods.krona` names the paper and the equations."""

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

Factors = tuple[tuple[int, int], tuple[int, int]]
"""Rows and columns of A, and of B."""


def multiply(a: torch.Tensor, b: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Compute (A kron B) x as A X B^T.

    Args:
        a: `(a_out, a_in)`.
        b: `(b_out, b_in)`.
        x: `(..., a_in * b_in)`.

    Returns:
        `(..., a_out * b_out)`
    """
    matrix = x.reshape(*x.shape[:-1], a.shape[1], b.shape[1])
    halfway = functional.linear(matrix, b)  # (..., a_in, b_out)
    product = functional.linear(halfway.transpose(-1, -2), a)  # (..., b_out, a_out)
    return product.transpose(-1, -2).flatten(-2)


class Kronecker(nn.Module):
    """The pair A, B of one projection; `forward` is the hook on the projection's module."""

    def __init__(self, projection: Projection, factors: Factors, scaling: float) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.zeros(factors[0]))
        self.b = nn.Parameter(torch.empty(factors[1]))
        self.scaling = scaling
        self.margins = margins_of(projection)
        nn.init.kaiming_uniform_(self.b, a=math.sqrt(5))

    def forward(self, module: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        """Add scaling * (A kron B) x (2212.10650 sec. 3) of the input `(..., d_in)` to the output `(..., d_module)`."""
        delta = multiply(self.a, self.b, args[0].to(self.a.dtype))
        return add_delta(output, self.scaling * delta, self.margins)

    def fold(self, module: nn.Module) -> dict[str, torch.Tensor] | None:
        """W_0 + s (A kron B), in the slice of a fused map alone; see `Foldable`."""
        return fold_weight(module, self.scaling * torch.kron(self.a, self.b), self.margins)


def attach(
    model: nn.Module, targets: Mapping[str, Projection], factors: Mapping[str, Factors], scaling: float
) -> Attachment:
    """Hook a pair of factors on every target."""
    pairs = nn.ModuleDict({name: Kronecker(targets[name], shapes, scaling) for name, shapes in factors.items()})
    return Attachment(module=pairs, undo=hook_forwards(model, targets, pairs))
