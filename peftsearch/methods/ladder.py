"""Ladder side-tuning: a small network alongside the backbone that reads its hidden states (arXiv 2206.06522).

Sec. 3.1: s_i = g_i((1 - mu_i) down_i(h_i) + mu_i s_(i-1)) with a learned gate mu_i = sigma(alpha_i) (the paper's
temperature is 1 here), starting from the embeddings; the last side state is mapped back to the backbone's width: h_L +
up(s_L). Gradients flow through the side network only: it reads detached hidden states, so no activation of the backbone
is kept for it. A side block g_i is a residual two-layer network of the side width r (in the paper a transformer block
reduced to r: attention among side states is left out). It acts once per model. The size is r; with L blocks,
(L + 1) (d r + r) parameters for the maps down, L (2 r^2 + 2 r + 1) for the side blocks and gates, and d r + d for the
map up, which starts at zero: the output is unchanged at init. It does not merge.

Left out: side blocks initialised by pruning the backbone, and dropping of side blocks (sec. 3.2, 3.3); models of two
stacks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from peftsearch.backbone.anatomy import Block
from peftsearch.methods.added import Added, find_wide_obstacle

if TYPE_CHECKING:
    from torch import nn

    from peftsearch.methods.layers.attachment import Attachment


@dataclass(frozen=True, kw_only=True, slots=True)
class Ladder(Added):
    """A side network along all blocks, once per model."""

    name: str = "ladder"
    paper: str = "2206.06522, sec. 3.1"
    places: str = "beside all blocks, once per model"
    lr_scale: float = 4.3
    lr_follows_size: bool = True
    knob: str = "width"
    model_wide: Literal[True] = True

    def obstacle(self, block: Block) -> str | None:
        """Say that the model has two stacks, reads no words or runs one block several times; None where it does not."""
        return find_wide_obstacle(block, lost="rungs", instead="adapter or lora")

    def max_size(self, block: Block) -> int:
        """The hidden size: a side network is no wider than the backbone."""
        return block.hidden_size

    def count(self, block: Block, size: int) -> int:
        """(L + 2) d r + d, and (L + 1) r + L (2 r^2 + 2 r + 1)."""
        n, d = _n_blocks(block), block.hidden_size
        return (n + 2) * d * size + d + (n + 1) * size + n * (2 * size * size + 2 * size + 1)

    def label(self, block: Block, size: int) -> str:
        """The side width: `r=4`."""
        return f"r={size}"

    def attach(self, model: nn.Module, block: Block, size: int) -> Attachment:
        """Hook a side network of width `size` along all blocks."""
        from peftsearch.methods.layers.ladder import attach

        return attach(model, block, size)


def _n_blocks(block: Block) -> int:
    return 0 if block.words is None else int(block.words.last_block.rpartition(".")[2]) + 1
