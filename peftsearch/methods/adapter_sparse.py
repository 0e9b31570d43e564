"""SparseAdapter: wide bottleneck adapters pruned before training (arXiv 2210.04284).

Sec. 3.1 prunes the weights of an adapter at init by a score and trains the remaining ones; sec. 3.3, "large-sparse",
widens the bottleneck so that as many weights are kept as a small dense adapter has. Here the score is SNIP's, |g w|
summed over the priming batches (sec. 3.2), the width is four times m and a quarter of the weights is kept: the size is
m, with 2 d m + d + 4 m parameters per place (the weights of an adapter of width m, the biases of the wide one). It acts
after the attention and after the feed-forward network, as Houlsby's. Both maps start as truncated normals of 0.01,
since a map at zero has no score; so the output changes slightly at init. It does not merge.

Left out: the paper's other scores (random, magnitude, Erdos-Renyi, GraSP).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from peftsearch.backbone.anatomy import Block
from peftsearch.methods.adapter import Adapter

if TYPE_CHECKING:
    from torch import nn

    from peftsearch.methods.layers.attachment import Attachment

WIDENING = 4
"""Width as a multiple of that of a dense adapter with as many weights."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SparseAdapter(Adapter):
    """A wide adapter pruned at init, after the attention and after the feed-forward network."""

    name: str = "adapter_sparse"
    paper: str = "2210.04284, sec. 3"
    lr_scale: float = 1.4
    lr_follows_size: bool = True
    exact_at_init: bool = False

    def max_size(self, block: Block) -> int:
        """The size at which the bottleneck is as wide as the hidden size."""
        return max(1, block.hidden_size // WIDENING)

    def count(self, block: Block, size: int) -> int:
        """2 d m + d + 4 m per place."""
        return sum(2 * p.d_out * size + p.d_out + WIDENING * size for p in self.outputs(block).values())

    def label(self, block: Block, size: int) -> str:
        """The width, and the divisor of the weights that are kept: `m=8/4`."""
        return f"m={WIDENING * size}/{WIDENING}"

    def attach(self, model: nn.Module, block: Block, size: int) -> Attachment:
        """Hook a wide bottleneck on every place; `prime` chooses the weights to keep."""
        from peftsearch.methods.layers.adapter_sparse import attach

        return attach(model, self.outputs(block), size, WIDENING)
