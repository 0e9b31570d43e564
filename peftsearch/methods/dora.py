"""DoRA, weight-decomposed low-rank adaptation (arXiv 2402.09353).

Eq. 5: W' = m (W_0 + s B A) / ||W_0 + s B A||, with a trained magnitude m and a direction that LoRA changes. The norm is
taken over the inputs of each output, as in HF peft: m has d_out entries. By default it acts on the query and value
projections, in a fused map on their slices alone. The size is the rank r, from 1 to the smallest width of a target;
r (d_in + d_out) + d_out parameters per target. As sec. 4.3 proposes, no gradient flows through the norm. A, B and the
scale s = alpha / sqrt(r) are as in `lora`.

m is stored as ||W_0|| + delta with delta = 0: the same functions and, without weight decay, the same Adam updates as
training m itself. Both norms are computed by the same operations in every forward pass, so that their quotient at init
is exactly one and the output is unchanged, on any device. It merges. Weights packed by bitsandbytes are unpacked for
the norm; other packed weights are refused.

Left out: dropout on x, and the decoder's cross-attention.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from peftsearch.backbone.anatomy import Block, Projection
from peftsearch.methods.lora import LoRA

if TYPE_CHECKING:
    from torch import nn

    from peftsearch.methods.layers.attachment import Attachment


@dataclass(frozen=True, kw_only=True, slots=True)
class DoRA:
    """A trained magnitude and LoRA's direction on chosen projections of a block."""

    name: str = "dora"
    paper: str = "2402.09353, eq. 5"
    lora: LoRA = field(default_factory=LoRA)
    """LoRA with the projections and the scale of B A."""
    lr_scale: float = 1.0
    lr_follows_size: bool = True
    knob: str = "rank"
    merges: bool = True
    changes: str = "whole matrices"
    exact_at_init: bool = True

    @property
    def places(self) -> str:
        """The projections, in words."""
        return self.lora.places

    def projections(self, block: Block) -> dict[str, Projection]:
        """The projections to act on in this block, by name."""
        return self.lora.projections(block)

    def obstacle(self, block: Block) -> str | None:
        """None: every block has linear maps."""
        return None

    def max_size(self, block: Block) -> int:
        """The smallest width of a target: a higher rank adds nothing."""
        return self.lora.max_size(block)

    def count(self, block: Block, size: int) -> int:
        """The sum of r (d_in + d_out) + d_out over the targets."""
        return self.lora.count(block, size) + sum(p.d_out for p in self.lora.projections(block).values())

    def changed(self, block: Block, size: int) -> int:
        """All weights of the targets."""
        return self.lora.changed(block, size)

    def label(self, block: Block, size: int) -> str:
        """The rank: `r=4`."""
        return self.lora.label(block, size)

    def attach(self, model: nn.Module, block: Block, size: int) -> Attachment:
        """Hook A, B and a magnitude on every target.

        Raises:
            MethodError: A target's weights are packed by another library than bitsandbytes.
        """
        from peftsearch.methods.layers.dora import attach

        return attach(model, self.lora.projections(block), size, self.lora.alpha / math.sqrt(size))
