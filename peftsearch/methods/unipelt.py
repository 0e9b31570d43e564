"""UniPELT: LoRA, a prefix and an adapter in one block, each behind a learned gate (arXiv 2110.07577).

Sec. 3.2: every part is scaled by a gate in (0, 1), sigma(w^T h + b) averaged over the tokens of an example. h are the
hidden states that the part sees: the map's input for LoRA, the attention's input for a prefix, the adapter's own input
for the adapter (after the feed-forward network alone, as in the authors' Pfeiffer setup). The size is rank, length and
width at once; the count is that of the parts plus d + 1 per gate, one gate for each map of LoRA, each attention and the
adapter. w starts as a normal of 0.02 and b at zero: gates start near one half. The prefix changes the output at init.
It does not merge: gates depend on the input.

Padding counts as tokens in a gate's mean, as in the authors' code.

Left out: causal models, where a gate's mean would let tokens read later ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from peftsearch.backbone.anatomy import Block
from peftsearch.methods.adapter import Adapter
from peftsearch.methods.added import Added
from peftsearch.methods.lora import LoRA
from peftsearch.methods.prefix import Prefix

if TYPE_CHECKING:
    from torch import nn

    from peftsearch.methods.layers.attachment import Attachment

_LORA, _PREFIX, _ADAPTER = LoRA(), Prefix(), Adapter(places_in_block=("ffn",), lr_scale=1.4)


@dataclass(frozen=True, kw_only=True, slots=True)
class UniPelt(Added):
    """Gated LoRA, prefix and adapter of one size."""

    name: str = "unipelt"
    paper: str = "2110.07577, sec. 3.2"
    places: str = "query and value projections, keys and values of the self-attention, after ffn"
    parts: tuple[LoRA, Prefix, Adapter] = (_LORA, _PREFIX, _ADAPTER)
    """LoRA, prefix and adapter; each trains at its own rate, with its gates."""
    lr_scale: float = 1.4
    lr_follows_size: bool = True
    knob: str = "size"
    exact_at_init: bool = False

    def obstacle(self, block: Block) -> str | None:
        """Say that the block is causal, where a gate's mean would leak later tokens, or why it takes no prefix."""
        if block.attention.causal or block.cross_attention is not None:
            return f"{block.path} is causal, and the gates average over whole texts; use mam there"
        return self.parts[1].obstacle(block)

    def max_size(self, block: Block) -> int:
        """The smallest of the parts' largest sizes."""
        return min(part.max_size(block) for part in self.parts)

    def count(self, block: Block, size: int) -> int:
        """The sum over the parts, and a gate for each map of LoRA, each prefix and the adapter."""
        gates = [p.d_in for p in self.parts[0].projections(block).values()]
        gates += [*(attention.query.d_in for attention in block.attentions), block.ffn.output.d_out]
        return sum(part.count(block, size) for part in self.parts) + sum(d + 1 for d in gates)

    def label(self, block: Block, size: int) -> str:
        """The size of all parts: `r=l=m=2`."""
        return f"r=l=m={size}"

    def attach(self, model: nn.Module, block: Block, size: int) -> Attachment:
        """Attach the gated parts at this size."""
        from peftsearch.methods.layers.unipelt import attach

        lora = self.parts[0]
        return attach(model, block, lora.projections(block), size, lora.alpha / math.sqrt(size))
