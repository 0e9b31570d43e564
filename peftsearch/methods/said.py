"""Intrinsic SAID: training in a random low-dimensional subspace of the weights (arXiv 2012.13255).

Eq. 3: theta_i = theta_0,i + lambda_i P(theta_d)_i with a scale lambda for each layer i and a fixed random projection P,
the Fastfood transform (eq. 4: P = H G Pi H B; Hadamard, normal, permutation, Hadamard, signs). Here each block has its
own theta of s values and its own lambda, so that sizes can differ by block; it acts on the query and value weights (the
paper on all weights). The projection is seeded by the names of the maps and never stored, so a saved theta means the
same everywhere. theta starts at zero, lambda at one: the output is unchanged at init. s + 1 parameters per block, s in
units of a sixteenth of the hidden size. It merges, which changes whole matrices.

Left out: one theta for all blocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from peftsearch.backbone.anatomy import Block
from peftsearch.methods.projections import OnTargets

if TYPE_CHECKING:
    from torch import nn

    from peftsearch.methods.layers.attachment import Attachment

UNITS = 16
"""Number of units that the hidden size is divided into."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Said(OnTargets):
    """A random subspace of the query and value weights of a block."""

    name: str = "said"
    paper: str = "2012.13255, eq. 3"
    lr_scale: float = 0.4
    lr_follows_size: bool = True
    knob: str = "dimensions"

    def unit(self, block: Block) -> int:
        """Number of dimensions in one unit of size."""
        return max(1, block.hidden_size // UNITS)

    def max_size(self, block: Block) -> int:
        """The size with as many dimensions as the smaller map has weights; more would not be a subspace."""
        return min(p.d_in * p.d_out for p in self.projections(block).values()) // self.unit(block)

    def count(self, block: Block, size: int) -> int:
        """The dimensions and one scale."""
        return size * self.unit(block) + 1

    def label(self, block: Block, size: int) -> str:
        """The number of dimensions: `d=96`."""
        return f"d={size * self.unit(block)}"

    def attach(self, model: nn.Module, block: Block, size: int) -> Attachment:
        """Hook the projection of `theta` on every target."""
        from peftsearch.methods.layers.said import attach

        return attach(model, self.projections(block), size * self.unit(block))
