"""PHM adapters: bottlenecks whose maps are sums of Kronecker products (arXiv 2106.04647; the layer from 2102.08597).

2106.04647 sec. 3: W = sum_i A_i kron B_i for i = 1 .. n, with A_i in R^(n x n) and, in a map d -> k, B_i in
R^(k/n x d/n). The adapter is h + W_up f(W_down h + b_down) + b_up, after the attention and after the feed-forward
network, as `adapter`. The size is k / n with n = 4; 2 (k d / n + n^3) + k + d parameters a place. Each map has its own
A_i and B_i; `compacter` shares the A_i and factorises the B_i. f is GELU, as in the serial adapters here.

The A_i start as normals of deviation 1 / sqrt(n) and W_down's B_i as the serial adapter's W_down does (a truncated
normal of 0.01), so that W_down has that deviation too; W_up's B_i and the biases start at zero: the output is unchanged
at init. It does not merge. The paper trains the norms beside it, which `layernorm` does here.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from peftsearch.backbone.anatomy import Block
from peftsearch.methods.adapter import INIT_STD, Adapter
from peftsearch.methods.method import Attachment
from peftsearch.methods.projections import add_delta, hook_outputs


class KroneckerSum(nn.Module):
    """The factors of one map (2106.04647 sec. 3)."""

    def __init__(self, d_out: int, d_in: int, n: int, at_zero: bool) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.empty(n, n, n).normal_(std=n**-0.5))
        self.b = nn.Parameter(torch.zeros(n, d_out // n, d_in // n))
        if not at_zero:
            nn.init.trunc_normal_(self.b, std=INIT_STD, a=-2 * INIT_STD, b=2 * INIT_STD)

    def matrix(self) -> torch.Tensor:
        """W `(d_out, d_in)`: a small matrix, as d_out or d_in is the bottleneck's width."""
        w = torch.einsum("iab,ipq->apbq", self.a, self.b)
        return w.reshape(w.shape[0] * w.shape[1], w.shape[2] * w.shape[3])


class KroneckerBottleneck(nn.Module):
    """The adapter of one place; its `forward` is the hook on the output projection."""

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


@dataclass(frozen=True, kw_only=True, slots=True)
class PHM(Adapter):
    """Bottlenecks of Kronecker products in the places of `Adapter`."""

    name: str = "phm"
    paper: str = "2106.04647, sec. 3"
    lr_scale: float = 0.5
    n: int = 4
    """Kronecker products of a map, and the width and height of their first factors."""

    def obstacle(self, block: Block) -> str | None:
        """Its maps are cut into n x n parts."""
        if block.hidden_size % self.n:
            return f"the hidden size {block.hidden_size} of {block.path} is no multiple of {self.n}; use adapter there"
        return None

    def max_size(self, block: Block) -> int:
        """The hidden size in units of n: a wider layer is no bottleneck."""
        return block.hidden_size // self.n

    def count(self, block: Block, size: int) -> int:
        """2 (k d / n + n^3) + k + d a place."""
        return sum(2 * (size * p.d_out + self.n**3) + self.n * size + p.d_out for p in self.outputs(block).values())

    def label(self, block: Block, size: int) -> str:
        """The width of the bottleneck: `k=8`."""
        return f"k={self.n * size}"

    def attach(self, model: nn.Module, block: Block, size: int) -> Attachment:
        """Hook a bottleneck of width n * `size` on every place."""
        outputs = self.outputs(block)
        modules = {place: KroneckerBottleneck(p.d_out, self.n * size, self.n) for place, p in outputs.items()}
        undo = hook_outputs(model, {place: (outputs[place].path, m.forward) for place, m in modules.items()})
        return Attachment(module=nn.ModuleDict(modules), undo=undo)
