"""LayerNorm tuning: training the gains and biases of the norms alone (arXiv 2312.11420; on BERT also 2003.00152).

2312.11420 sec. 3 trains the norms of every block. Here each gain g becomes g + delta_g and each bias b becomes
b + delta_b, with both deltas 0 at init: the same functions and, without weight decay, the same Adam updates as
training g and b themselves, while the backbone stays untouched. The size is the index of a named subset, smallest
first: `gains`, `gains+biases`; blocks whose norms have no biases (RMSNorm) have only the first. d parameters per gain
and d per bias. The output is unchanged at init. It merges in place.

Norms whose gain is 1 + weight (Gemma) are recognised by their output at a weight of zero. A norm's bias that BitFit
also trains gets both deltas.

Left out: norms outside the blocks (embeddings, the final one), which belong to no group, and norms of another width
than the hidden one (those of single heads).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from peftsearch.backbone.anatomy import Block

if TYPE_CHECKING:
    from torch import nn

    from peftsearch.methods.layers.attachment import Attachment


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerNorm:
    """Deltas on the gains, or the gains and biases, of a block's norms."""

    name: str = "layernorm"
    paper: str = "2312.11420, sec. 3"
    places: str = "gains and biases of the norms"
    lr_scale: float = 0.7
    lr_follows_size: bool = True
    knob: str = "subset"
    merges: bool = True
    changes: str = "the norms"
    exact_at_init: bool = True

    def obstacle(self, block: Block) -> str | None:
        """Say that the block has no norm with a gain to train; None where it has."""
        return None if block.norms else f"{block.path} has no norms with a gain; use bitfit or lora there"

    def max_size(self, block: Block) -> int:
        """2 where a norm has a bias, else 1."""
        return 2 if any(norm.bias for norm in block.norms) else 1

    def count(self, block: Block, size: int) -> int:
        """The width d of each gain, and at size 2 of each bias too."""
        return sum(norm.width * (2 if size == 2 and norm.bias else 1) for norm in block.norms)

    def changed(self, block: Block, size: int) -> int:
        """The trained gains and biases."""
        return self.count(block, size)

    def label(self, block: Block, size: int) -> str:
        """The name of the subset."""
        return "gains+biases" if size == 2 else "gains"

    def attach(self, model: nn.Module, block: Block, size: int) -> Attachment:
        """Hook the deltas on every norm of the block."""
        from peftsearch.methods.layers.layernorm import attach

        return attach(model, block.norms, with_biases=size == 2)
