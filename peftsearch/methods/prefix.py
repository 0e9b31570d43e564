"""Prefix tuning (arXiv 2101.00190).

Sec. 4.2: l trained keys and values are put in front of the attention's own, in every tuned block; a decoder that reads
an encoder gets them in its cross-attention too. An attention function registered with transformers' AttentionInterface
adds them and then calls the attention that was configured (`sdpa` or `eager`). Every query sees the whole prefix;
prefix keys carry no position (no rotary embedding, and a relative position bias of zero); the key-value cache never
holds them, so generation works with and without a cache. The size is the length l, from 1 to 200; 2 l d_kv parameters
per attention. Keys and values start as normals with standard deviation 0.02, so the output changes at init. It does not
merge.

Left out: the MLP reparametrisation of sec. 4.3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from peftsearch.backbone.anatomy import Block
from peftsearch.methods.added import Added

if TYPE_CHECKING:
    from torch import nn

    from peftsearch.methods.layers.attachment import Attachment

MAX_LENGTH = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class Prefix(Added):
    """Trained keys and values in front of a block's own, in its self-attention and its cross-attention."""

    name: str = "prefix"
    paper: str = "2101.00190, sec. 4.2"
    places: str = "keys and values of the attention"
    lr_scale: float = 20.0
    lr_follows_size: bool = False
    knob: str = "length"
    exact_at_init: bool = False

    def obstacle(self, block: Block) -> str | None:
        """Say that an attention bypasses transformers' AttentionInterface; None where all of them use it."""
        path = next((attention.path for attention in block.attentions if not attention.interface), None)
        if path is None:
            return None
        return f"{path} does not use transformers' AttentionInterface; use lora or adapter there"

    def max_size(self, block: Block) -> int:
        """200 tokens: the paper sees no gain beyond (2101.00190, sec. 7.1)."""
        return MAX_LENGTH

    def count(self, block: Block, size: int) -> int:
        """2 l d_kv per attention."""
        return 2 * size * sum(attention.d_kv for attention in block.attentions)

    def label(self, block: Block, size: int) -> str:
        """The length: `l=8`."""
        return f"l={size}"

    def attach(self, model: nn.Module, block: Block, size: int) -> Attachment:
        """Put a prefix of length `size` on the block's attentions and route their config through it.

        Raises:
            MethodError: The model was loaded with an attention implementation other than `sdpa` or `eager`.
        """
        from peftsearch.methods.layers.prefix import attach

        return attach(model, block, size)
