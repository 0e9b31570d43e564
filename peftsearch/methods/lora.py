"""LoRA, low-rank adaptation (arXiv 2106.09685).

Eq. 3: h = W_0 x + (alpha / r) B A x, with A in R^(r x d_in), B in R^(d_out x r) and W_0 frozen. By default it acts on
the query and value projections (sec. 4.2, 5.1), a decoder's cross-attention included; in a fused map it acts on their
slices alone. The size is the rank r, from 1 to the smallest width of a target; r (d_in + d_out) parameters per target.
A starts as in HF peft (Kaiming uniform with a = sqrt 5), B at zero, so the output is unchanged at init. It merges:
W = W_0 + s B A.

The scale s is alpha / sqrt(r) (rank-stabilised LoRA, arXiv 2312.03732) rather than the paper's alpha / r: a search fits
ranks to budgets, and one learning rate has to suit all of them.

Left out: dropout on x.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from peftsearch.backbone.anatomy import Block
from peftsearch.methods.projections import OnTargets

if TYPE_CHECKING:
    from torch import nn

    from peftsearch.methods.layers.attachment import Attachment


@dataclass(frozen=True, kw_only=True, slots=True)
class LoRA(OnTargets):
    """LoRA on chosen projections of a block."""

    name: str = "lora"
    paper: str = "2106.09685, eq. 3"
    alpha: float = 1.0
    """The delta is scaled by alpha / sqrt(r), as rank-stabilised LoRA does (2312.03732; HF peft's `use_rslora`)."""
    lr_scale: float = 1.0
    lr_follows_size: bool = True
    knob: str = "rank"

    def max_size(self, block: Block) -> int:
        """The smallest width of a target: a higher rank adds nothing."""
        return min(min(p.d_in, p.d_out) for p in self.projections(block).values())

    def count(self, block: Block, size: int) -> int:
        """The sum of r (d_in + d_out) over the targets."""
        return size * sum(p.d_in + p.d_out for p in self.projections(block).values())

    def label(self, block: Block, size: int) -> str:
        """The rank: `r=4`."""
        return f"r={size}"

    def attach(self, model: nn.Module, block: Block, size: int) -> Attachment:
        """Hook an A, B pair of rank `size` on every target."""
        from peftsearch.methods.layers.lora import attach

        return attach(model, self.projections(block), size, self.alpha / math.sqrt(size))
