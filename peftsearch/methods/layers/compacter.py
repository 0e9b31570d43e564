"""The layers of Compacter; `peftsearch.methods.compacter` names the paper and the equations."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import nn
from torch.nn import functional

from peftsearch.backbone.anatomy import Projection
from peftsearch.methods.layers.attachment import Attachment
from peftsearch.methods.layers.projections import add_delta, hook_forwards

RULE_STD = 0.1
"""Standard deviation of the normal that the rule starts from (the authors' code)."""


class LowRankKronecker(nn.Module):
    """The factors of one map that are not shared (2106.04647, eq. 6)."""

    def __init__(self, d_out: int, d_in: int, n: int, at_zero: bool) -> None:
        super().__init__()
        self.s = nn.Parameter(torch.zeros(n, d_out // n))
        self.t = nn.Parameter(torch.zeros(n, d_in // n))
        for factor, skip in ((self.s, at_zero), (self.t, False)):
            bound = math.sqrt(6 / (1 + factor.shape[1]))  # Glorot, of a matrix with one row or column
            if not skip:
                nn.init.uniform_(factor, -bound, bound)

    def matrix(self, rule: torch.Tensor) -> torch.Tensor:
        """W `(d_out, d_in)` = sum_i A_i kron (s_i t_i^T), with the rule A `(n, n, n)`."""
        w = torch.einsum("iab,ip,iq->apbq", rule, self.s, self.t)
        return w.reshape(self.s.numel(), self.t.numel())


class CompactBottleneck(nn.Module):
    """The adapter of one place; `forward` is the hook on the output projection."""

    def __init__(self, hidden_size: int, width: int, n: int, owner: Compact) -> None:
        super().__init__()
        self.down = LowRankKronecker(width, hidden_size, n, at_zero=False)
        self.up = LowRankKronecker(hidden_size, width, n, at_zero=True)
        self.b_down = nn.Parameter(torch.zeros(width))
        self.b_up = nn.Parameter(torch.zeros(hidden_size))
        self.__dict__["owner"] = owner  # bypasses nn.Module's registration: the owner already holds this module

    def forward(self, module: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        """Add W_up f(W_down h + b_down) + b_up to a sub-layer's output h `(..., d)`."""
        rule: torch.Tensor = self.__dict__["owner"].rule
        low = functional.linear(output.to(rule.dtype), self.down.matrix(rule), self.b_down)  # (..., width)
        return add_delta(output, functional.linear(functional.gelu(low), self.up.matrix(rule), self.b_up), None)


class Compact(nn.Module):
    """The adapters of a block, and the rule A `(n, n, n)` that all blocks share."""

    def __init__(self, places: dict[str, int], width: int, n: int) -> None:
        super().__init__()
        self.rule = nn.Parameter(torch.empty(n, n, n).normal_(std=RULE_STD))
        self.places = nn.ModuleDict({place: CompactBottleneck(d, width, n, self) for place, d in places.items()})


def attach(model: nn.Module, outputs: Mapping[str, Projection], width: int, n: int) -> Attachment:
    """Hook a compact bottleneck behind every output projection."""
    module = Compact({place: p.d_out for place, p in outputs.items()}, width, n)
    return Attachment(module=module, undo=hook_forwards(model, outputs, module.places))


def share(first: nn.Module, module: nn.Module) -> None:
    """Use the rule of the first placement's module in another placement's module."""
    assert isinstance(first, Compact), "the first placement is of this method"
    module.rule = first.rule
