"""Bottleneck adapters, in the places of Houlsby (arXiv 1902.00751) or of Pfeiffer (arXiv 2005.00247).

1902.00751 sec. 2.1: h + W_up f(W_down h + b_down) + b_up, applied to the output of a sub-layer, after its projection
back to the hidden width and before the residual is added. Houlsby puts one after every sub-layer (the attention, a
decoder's cross-attention, the feed-forward network), Pfeiffer (2005.00247) one after the feed-forward network. The size
is the width m of the bottleneck, from 1 to the hidden size; 2 d m + d + m parameters per place. f is GELU, as in
Houlsby's own code. W_down starts as a normal of 0.01 truncated at two standard deviations (1902.00751 sec. 3.6), W_up
and the biases at zero: the output is unchanged at init. It does not merge.

It reads the output projection's result. In blocks with dropout after that projection it acts before the dropout, in
the paper after it. Left out: Pfeiffer's choice of residual and norms around the bottleneck.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from peftsearch.backbone.anatomy import Block, Projection
from peftsearch.methods.added import Added
from peftsearch.methods.projections import name_projections

if TYPE_CHECKING:
    from torch import nn

    from peftsearch.methods.layers.attachment import Attachment


@dataclass(frozen=True, kw_only=True, slots=True)
class Adapter(Added):
    """A bottleneck after the attention, after the feed-forward network, or after both."""

    name: str = "adapter"
    paper: str = "1902.00751, sec. 2.1"
    places_in_block: tuple[str, ...] = ("attention", "ffn")
    """Sub-layers that get a bottleneck: `attention` (every attention of a block), `ffn`."""
    lr_scale: float = 1.0
    lr_follows_size: bool = True
    knob: str = "width"

    @property
    def places(self) -> str:
        """The places, in words."""
        return "after " + " and after ".join(self.places_in_block)

    def outputs(self, block: Block) -> dict[str, Projection]:
        """Output projections of this block that get a bottleneck, by sub-layer."""
        named = name_projections(block)
        sublayers = {"attention": "output", "cross_attention": "cross_output", "ffn": "ffn_out"}
        return {
            sublayer: named[name]
            for sublayer, name in sublayers.items()
            if sublayer.removeprefix("cross_") in self.places_in_block and name in named
        }

    def max_size(self, block: Block) -> int:
        """The hidden size: a wider layer is not a bottleneck."""
        return block.hidden_size

    def count(self, block: Block, size: int) -> int:
        """2 d m + d + m per place."""
        return sum(2 * p.d_out * size + p.d_out + size for p in self.outputs(block).values())

    def label(self, block: Block, size: int) -> str:
        """The width of the bottleneck: `m=8`."""
        return f"m={size}"

    def attach(self, model: nn.Module, block: Block, size: int) -> Attachment:
        """Hook a bottleneck of width `size` on every place."""
        from peftsearch.methods.layers.adapter import attach

        return attach(model, self.outputs(block), size)
