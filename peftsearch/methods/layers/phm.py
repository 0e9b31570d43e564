"""The layers of PHM adapters; `peftsearch.methods.phm` names the papers."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn
from torch.nn import functional

from peftsearch.backbone.anatomy import Projection
from peftsearch.methods.layers.adapter import start_small
from peftsearch.methods.layers.attachment import Attachment
from peftsearch.methods.layers.projections import add_delta, hook_forwards


class KroneckerSum(nn.Module):
    """The factors of one map (2106.04647 sec. 3)."""

    def __init__(self, d_out: int, d_in: int, n: int, at_zero: bool) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.empty(n, n, n).normal_(std=n**-0.5))
        self.b = nn.Parameter(torch.zeros(n, d_out // n, d_in // n))
        if not at_zero:
            start_small(self.b)

    def matrix(self) -> torch.Tensor:
        """W `(d_out, d_in)`, a small matrix, since d_out or d_in is the bottleneck's width."""
        w = torch.einsum("iab,ipq->apbq", self.a, self.b)
        return w.reshape(w.shape[0] * w.shape[1], w.shape[2] * w.shape[3])


class KroneckerBottleneck(nn.Module):
    """The adapter of one place; `forward` is the hook on the output projection."""

    def __init__(self, hidden_size: int, width: int, n: int) -> None:
        super().__init__()
        self.down = KroneckerSum(width, hidden_size, n, at_zero=False)
        self.up = KroneckerSum(hidden_size, width, n, at_zero=True)
        self.b_down = nn.Parameter(torch.zeros(width))
        self.b_up = nn.Parameter(torch.zeros(hidden_size))

    def forward(self, module: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        """Add W_up f(W_down h + b_down) + b_up to a sub-layer's output h `(..., d)`."""
        low = functional.gelu(functional.linear(output.to(self.b_down.dtype), self.down.matrix(), self.b_down))
        return add_delta(output, functional.linear(low, self.up.matrix(), self.b_up), None)  # low is (..., width)


def attach(model: nn.Module, outputs: Mapping[str, Projection], width: int, n: int) -> Attachment:
    """Hook a bottleneck whose maps are sums of n products behind every output projection."""
    modules = nn.ModuleDict({place: KroneckerBottleneck(p.d_out, width, n) for place, p in outputs.items()})
    return Attachment(module=modules, undo=hook_forwards(model, outputs, modules))
