"""LoRA whose A, or whose B, is shared by the blocks of a group (ShareLoRA, arXiv 2406.10785).

Sec. 3: h = W_0 x + s B A x as in LoRA, where one of the two matrices is the same in all layers and the other is each
layer's own; `lora_shared_a` shares A, `lora_shared_b` shares B. Here the blocks of a group of the design share it, map
by map, and neighbouring groups with the same methods count as one: on all blocks alike, this is the paper's. At equal
parameters the rank is higher than LoRA's, or more maps are reached: sharing A, a group of n blocks has
r (d_in + n d_out) parameters per target instead of n r (d_in + d_out).

The size is the rank r, the same on all blocks of a group. s is 1 / sqrt(r) as in `lora`. A starts as in `lora`, B at
zero, so the output is unchanged at init. It merges: W = W_0 + s B A, on every block.

Left out: sharing both matrices, which would change every block in the same way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from peftsearch.backbone.anatomy import Block
from peftsearch.methods.lora import LoRA

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True, slots=True)
class SharedLoRA(LoRA):
    """LoRA with one of its matrices shared by the blocks of a group."""

    name: str = "lora_shared_a"
    paper: str = "2406.10785, sec. 3"
    shared: Literal["a", "b"] = "a"
    """The matrix that the blocks of a group share."""
    per_group: Literal[True] = True

    def count(self, block: Block, size: int) -> int:
        """The entries of the block's own matrices: r d_out per target where A is shared, r d_in where B is."""
        return size * sum(p.d_out if self.shared == "a" else p.d_in for p in self.projections(block).values())

    def n_shared(self, block: Block, size: int) -> int:
        """The entries of the shared matrices: r d_in per target where A is shared, r d_out where B is."""
        return size * sum(p.d_in if self.shared == "a" else p.d_out for p in self.projections(block).values())

    def share(self, first: nn.Module, module: nn.Module) -> None:
        """Use the matrices of the group's first block."""
        from peftsearch.methods.layers.lora import share

        share(first, module, self.shared)
