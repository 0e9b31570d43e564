"""The scaled parallel adapter on the feed-forward network (arXiv 2110.04366).

2110.04366 sec. 3.3 and 4.5: FFN(x) + s (W_up f(W_down x + b_down) + b_up) with s = 4. The size is the width m of the
bottleneck, from 1 to the hidden size; 2 d m + d + m parameters. It starts as the paper's scaled variant does, like
LoRA: W_down Kaiming uniform with a = sqrt 5, W_up and the biases at zero, so the output is unchanged at init. It does
not merge.

f is GELU, as in the serial adapters here, rather than the paper's ReLU: small budgets give widths of 1 to 5, and a ReLU
unit that is off for every token at the start never trains.

It reads the input x of the network's first map (the common input of gate and up in gated networks): in pre-norm blocks
(GPT-2, Llama) the hidden state after the norm, in post-norm blocks (BERT) the output of the attention sub-layer. Like
the serial adapters it adds to the output projection's result, before any dropout. It adds last: a serial adapter on the
same block does not see its delta, as in AutoPEFT's code (arXiv 2301.12132).

Left out: the parallel adapter of the attention, and a learned s.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from peftsearch.backbone.anatomy import Block
from peftsearch.methods.added import Added

if TYPE_CHECKING:
    from torch import nn

    from peftsearch.methods.layers.attachment import Attachment


@dataclass(frozen=True, kw_only=True, slots=True)
class ParallelAdapter(Added):
    """A bottleneck from the feed-forward network's input to its output."""

    name: str = "adapter_parallel"
    paper: str = "2110.04366, sec. 3.3 and 4.5"
    places: str = "beside ffn"
    scaling: float = 4.0
    """The s of the paper, which multiplies the delta."""
    lr_scale: float = 0.36
    """The factor s and the larger initial W_down make its steps larger than a serial adapter's (measured on TREC)."""
    lr_follows_size: bool = True
    knob: str = "width"

    def max_size(self, block: Block) -> int:
        """The hidden size: a wider layer is not a bottleneck."""
        return block.hidden_size

    def count(self, block: Block, size: int) -> int:
        """2 d m + d + m."""
        return 2 * block.hidden_size * size + block.hidden_size + size

    def label(self, block: Block, size: int) -> str:
        """The width of the bottleneck: `m=8`."""
        return f"m={size}"

    def attach(self, model: nn.Module, block: Block, size: int) -> Attachment:
        """Hook a bottleneck of width `size` on the network's first and last map."""
        from peftsearch.methods.layers.adapter_parallel import attach

        return attach(model, block, size, self.scaling)
