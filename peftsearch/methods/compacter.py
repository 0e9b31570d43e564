"""Compacter: adapters whose maps are sums of Kronecker products, with shared and low-rank factors (arXiv 2106.04647).

Eq. 5 and 6: W = sum_i A_i kron (s_i t_i^T) for i = 1 .. n, where the A_i in R^(n x n) are shared by all maps of all
adapters (sec. 4.2), s_i in R^(k/n x 1) and t_i in R^(1 x d/n) are the map's own. The adapter is h + W_up f(W_down h +
b_down) + b_up, after the attention and after the feed-forward network; Compacter++ (sec. 4.3) keeps the second alone.
The size is k / n with n = 4; 3 (k + d) parameters a place (the two maps k + d each, the biases k + d together), and n^3
shared ones. The A_i start as normals of 0.1, the factors Glorot uniform (the authors' code), W_up's s_i at zero: the
output is unchanged at init. f is GELU, as there. It does not merge.

With the norms that the paper trains too, the count is that of its table 1 on T5-base: 0.073 % and 0.047 %.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from peftsearch.backbone.anatomy import Block
from peftsearch.methods.adapter import Adapter
from peftsearch.methods.method import Attachment
from peftsearch.methods.projections import add_delta, hook_outputs

N = 4
"""Kronecker products of a map (2106.04647, sec. 5: n = 4)."""
RULE_STD = 0.1


class LowRankKronecker(nn.Module):
    """The own factors of one map (2106.04647, eq. 6)."""

    def __init__(self, d_out: int, d_in: int, at_zero: bool) -> None:
        super().__init__()
        self.s = nn.Parameter(torch.zeros(N, d_out // N))
        self.t = nn.Parameter(torch.zeros(N, d_in // N))
        for factor, skip in ((self.s, at_zero), (self.t, False)):
            bound = math.sqrt(6 / (1 + factor.shape[1]))  # Glorot, of a matrix with one row or column
            if not skip:
                nn.init.uniform_(factor, -bound, bound)

    def matrix(self, rule: torch.Tensor) -> torch.Tensor:
        """W `(d_out, d_in)` = sum_i A_i kron (s_i t_i^T), with the rule A `(n, n, n)`."""
        w = torch.einsum("iab,ip,iq->apbq", rule, self.s, self.t)
        return w.reshape(N * self.s.shape[1], N * self.t.shape[1])


class CompactBottleneck(nn.Module):
    """The adapter of one place; its `forward` is the hook on the output projection."""

    def __init__(self, hidden_size: int, width: int, owner: Compact) -> None:
        super().__init__()
        self.down = LowRankKronecker(width, hidden_size, at_zero=False)
        self.up = LowRankKronecker(hidden_size, width, at_zero=True)
        self.b_down = nn.Parameter(torch.zeros(width))
        self.b_up = nn.Parameter(torch.zeros(hidden_size))
        self.__dict__["owner"] = owner  # past nn.Module's bookkeeping: the owner holds this module already

    def forward(self, module: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        """Add W_up f(W_down h + b_down) + b_up to a sub-layer's output h `(..., d)`."""
        rule: torch.Tensor = self.__dict__["owner"].rule
        low = functional.linear(output.to(rule.dtype), self.down.matrix(rule), self.b_down)  # (..., width)
        return add_delta(output, functional.linear(functional.gelu(low), self.up.matrix(rule), self.b_up), None)


class Compact(nn.Module):
    """The adapters of a block, and the rule A `(n, n, n)` that all blocks share."""

    def __init__(self, places: dict[str, int], width: int) -> None:
        super().__init__()
        self.rule = nn.Parameter(torch.empty(N, N, N).normal_(std=RULE_STD))
        self.places = nn.ModuleDict({place: CompactBottleneck(d, width, self) for place, d in places.items()})


@dataclass(frozen=True, kw_only=True, slots=True)
class Compacter(Adapter):
    """Compact adapters in the places of `Adapter`."""

    name: str = "compacter"
    paper: str = "2106.04647, eq. 6"
    lr_scale: float = 1.0

    def obstacle(self, block: Block) -> str | None:
        """Its maps are cut into n x n parts."""
        if block.hidden_size % N:
            return f"the hidden size {block.hidden_size} of {block.path} is no multiple of {N}; use adapter there"
        return None

    def max_size(self, block: Block) -> int:
        """The hidden size: a wider layer is no bottleneck."""
        return block.hidden_size // N

    def count(self, block: Block, size: int) -> int:
        """3 (k + d) a place, the shared rule apart."""
        return sum(3 * (N * size + p.d_out) for p in self.outputs(block).values())

    def label(self, block: Block, size: int) -> str:
        """The width of the bottleneck: `k=8`."""
        return f"k={N * size}"

    def n_shared(self, block: Block) -> int:
        """The rule: n matrices of n x n."""
        return N**3

    def share(self, first: nn.Module, module: nn.Module) -> None:
        """Use the first block's rule."""
        assert isinstance(first, Compact), "the first placement is of this method"
        module.rule = first.rule

    def attach(self, model: nn.Module, block: Block, size: int) -> Attachment:
        """Hook a compact bottleneck of width n * `size` on every place."""
        outputs = self.outputs(block)
        module = Compact({place: p.d_out for place, p in outputs.items()}, N * size)
        hooks = {place: (outputs[place].path, each.forward) for place, each in module.places.items()}
        return Attachment(module=module, undo=hook_outputs(model, hooks))
