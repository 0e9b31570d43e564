"""FishMask: training the weights with the most Fisher information (arXiv 2111.09839).

Sec. 3.1: the diagonal of the empirical Fisher information, the mean of the squared gradients of the log-likelihood,
scores each weight before training; the k highest are trained, the mask stays fixed. Here every block chooses its own k
among the weights of all its linear maps (the paper chooses over the whole model). Each is trained as a delta on the
weight, zero at init: the output is unchanged. The gradients are taken over whole batches with the true labels (the
paper takes them of single examples). The size is k in units of 1/8192 of the block's weights. It merges: W + delta.

The k trained weights are also the changed ones; their positions are stored with them. In training the delta is a dense
product that costs as much as the map itself; once merged it costs nothing.

Left out: biases, norms and embeddings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from peftsearch.backbone.anatomy import Block
from peftsearch.methods.projections import count_weights, name_projections

if TYPE_CHECKING:
    from torch import nn

    from peftsearch.methods.layers.attachment import Attachment

UNITS = 8192
"""Number of sizes that a block's weights are divided into."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FishMask:
    """Deltas on the highest-scoring weights of a block."""

    name: str = "fishmask"
    paper: str = "2111.09839, sec. 3.1"
    places: str = "single weights of all projections"
    lr_scale: float = 0.4
    lr_follows_size: bool = True
    knob: str = "weights"
    merges: bool = True
    changes: str = "the chosen weights"
    exact_at_init: bool = True

    def obstacle(self, block: Block) -> str | None:
        """None: every block has weights."""
        return None

    def unit(self, block: Block) -> int:
        """Number of weights in one unit of size."""
        return max(1, count_weights(block.projections) // UNITS)

    def max_size(self, block: Block) -> int:
        """The size that covers all weights of the block's maps."""
        return count_weights(block.projections) // self.unit(block)

    def count(self, block: Block, size: int) -> int:
        """The k weights."""
        return size * self.unit(block)

    def changed(self, block: Block, size: int) -> int:
        """The k trained weights."""
        return self.count(block, size)

    def label(self, block: Block, size: int) -> str:
        """The number of weights: `k=432`."""
        return f"k={self.count(block, size)}"

    def attach(self, model: nn.Module, block: Block, size: int) -> Attachment:
        """Hook a delta on every map; `prime` chooses the weights."""
        from peftsearch.methods.layers.fishmask import attach

        return attach(model, name_projections(block), self.count(block, size))
