"""Compacter: adapters whose maps are sums of Kronecker products, with shared and low-rank factors (arXiv 2106.04647).

Eq. 5 and 6: W = sum_i A_i kron (s_i t_i^T) for i = 1 .. n, where the A_i in R^(n x n) are shared by all maps of all
adapters (sec. 4.2), s_i in R^(k/n x 1) and t_i in R^(1 x d/n) are the map's own. The adapter is h + W_up f(W_down h +
b_down) + b_up, after the attention and after the feed-forward network; Compacter++ (sec. 4.3) keeps only the latter.
The size is k / n with n = 4; 3 (k + d) parameters per place (k + d for each of the two maps, k + d for the biases), and
n^3 shared ones. The A_i start as normals of 0.1, the factors Glorot uniform (the authors' code), W_up's s_i at zero:
the output is unchanged at init. f is GELU, as in the authors' code. It does not merge.

Together with the norms, which the paper also trains, the count matches its table 1 on T5-base: 0.073 % and 0.047 %.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from peftsearch.backbone.anatomy import Block
from peftsearch.methods.adapter import Adapter
from peftsearch.methods.phm import find_remainder

if TYPE_CHECKING:
    from torch import nn

    from peftsearch.methods.layers.attachment import Attachment

N = 4
"""Kronecker products per map (2106.04647, sec. 5: n = 4)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Compacter(Adapter):
    """Compact adapters in the places of `Adapter`."""

    name: str = "compacter"
    paper: str = "2106.04647, eq. 6"
    lr_scale: float = 1.4
    lr_follows_size: bool = True
    per_group: Literal[False] = False

    def obstacle(self, block: Block) -> str | None:
        """Say that the maps cannot be cut into n x n parts; None where they can."""
        return find_remainder(block, N)

    def max_size(self, block: Block) -> int:
        """The hidden size in units of n: a wider layer is not a bottleneck."""
        return block.hidden_size // N

    def count(self, block: Block, size: int) -> int:
        """3 (k + d) per place, excluding the shared rule."""
        return sum(3 * (N * size + p.d_out) for p in self.outputs(block).values())

    def label(self, block: Block, size: int) -> str:
        """The width of the bottleneck: `k=8`."""
        return f"k={N * size}"

    def n_shared(self, block: Block, size: int) -> int:
        """Entries of the rule: n matrices of n x n."""
        return N**3

    def share(self, first: nn.Module, module: nn.Module) -> None:
        """Use the first block's rule."""
        from peftsearch.methods.layers.compacter import share

        share(first, module)

    def attach(self, model: nn.Module, block: Block, size: int) -> Attachment:
        """Hook a compact bottleneck of width n * `size` on every place."""
        from peftsearch.methods.layers.compacter import attach

        return attach(model, self.outputs(block), N * size, N)
