"""PHM adapters: bottlenecks whose maps are sums of Kronecker products (arXiv 2106.04647; the layer from 2102.08597).

2106.04647 sec. 3: W = sum_i A_i kron B_i for i = 1 .. n, with A_i in R^(n x n) and, in a map d -> k, B_i in
R^(k/n x d/n). The adapter is h + W_up f(W_down h + b_down) + b_up, after the attention and after the feed-forward
network, as `adapter`. The size is k / n with n = 4; 2 (k d / n + n^3) + k + d parameters per place. Each map has its
own A_i and B_i; `compacter` shares the A_i and factorises the B_i. f is GELU, as in the serial adapters here.

The A_i start as normals of deviation 1 / sqrt(n) and W_down's B_i as the serial adapter's W_down does (a truncated
normal of 0.01), so that W_down has the same deviation of 0.01; W_up's B_i and the biases start at zero: the output is
unchanged at init. It does not merge.

Left out: the norms, which the paper also trains; `layernorm` trains them here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from peftsearch.backbone.anatomy import Block
from peftsearch.methods.adapter import Adapter

if TYPE_CHECKING:
    from torch import nn

    from peftsearch.methods.layers.attachment import Attachment


@dataclass(frozen=True, kw_only=True, slots=True)
class PHM(Adapter):
    """Bottlenecks of Kronecker products in the places of `Adapter`."""

    name: str = "phm"
    paper: str = "2106.04647, sec. 3"
    lr_scale: float = 0.7
    lr_follows_size: bool = True
    n: int = 4
    """Kronecker products per map, and the width and height of their first factors."""

    def obstacle(self, block: Block) -> str | None:
        """Say that the maps cannot be cut into n x n parts; None where they can."""
        return find_remainder(block, self.n)

    def max_size(self, block: Block) -> int:
        """The hidden size in units of n: a wider layer is not a bottleneck."""
        return block.hidden_size // self.n

    def count(self, block: Block, size: int) -> int:
        """2 (k d / n + n^3) + k + d per place."""
        return sum(2 * (size * p.d_out + self.n**3) + self.n * size + p.d_out for p in self.outputs(block).values())

    def label(self, block: Block, size: int) -> str:
        """The width of the bottleneck: `k=8`."""
        return f"k={self.n * size}"

    def attach(self, model: nn.Module, block: Block, size: int) -> Attachment:
        """Hook a bottleneck of width n * `size` on every place."""
        from peftsearch.methods.layers.phm import attach

        return attach(model, self.outputs(block), self.n * size, self.n)


def find_remainder(block: Block, n: int) -> str | None:
    """Say that maps of a block's hidden size cannot be cut into n x n parts; None where they can."""
    if block.hidden_size % n:
        return f"the hidden size {block.hidden_size} of {block.path} is not a multiple of {n}; use adapter there"
    return None
