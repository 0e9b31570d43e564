"""Prefix tuning with reparametrisation: a small network computes the keys and values (arXiv 2101.00190, sec. 4.3).

P = MLP(P') with a smaller matrix P' in R^(l x h), a hidden layer and tanh; only P is kept after training, where the
placement becomes one of `prefix`. Here each block has its own network (in the paper one network serves all blocks),
with h = 8 for P' and the hidden layer (the paper's 512 and 800 far exceed the budgets of a search), so that
l h + h (h + 1) + 2 d_kv (h + 1) parameters are trained and 2 l d_kv are kept. The size is the length l, from 1 to 200.
P' starts as a standard normal and the network as in torch, with its last layer scaled to give vectors of 0.02 as in the
plain prefix; so the output changes at init. It does not merge.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from peftsearch.backbone.anatomy import Block
from peftsearch.methods.prefix import Prefix

if TYPE_CHECKING:
    import torch
    from torch import nn

    from peftsearch.methods.layers.attachment import Attachment

HIDDEN = 8
"""Width of P' and of the hidden layer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PrefixMLP(Prefix):
    """A prefix computed by a small network, which is dropped after training."""

    name: str = "prefix_mlp"
    paper: str = "2101.00190, sec. 4.3"
    lr_scale: float = 3.0
    lr_follows_size: bool = False
    becomes: str = "prefix"

    def count(self, block: Block, size: int) -> int:
        """P' and the two layers: l h + h (h + 1) + 2 d_kv (h + 1), with the d_kv of all attentions."""
        d_kv = sum(attention.d_kv for attention in block.attentions)
        return size * HIDDEN + HIDDEN * (HIDDEN + 1) + 2 * d_kv * (HIDDEN + 1)

    def changed(self, block: Block, size: int) -> int:
        """The keys and values that are kept: 2 l d_kv."""
        return Prefix().count(block, size)

    def reduced_size(self, block: Block, size: int) -> int:
        """The length, unchanged."""
        return size

    def reduced(self, module: nn.Module, block: Block) -> dict[str, torch.Tensor]:
        """The vectors as `prefix` holds them."""
        from peftsearch.methods.layers.prefix_mlp import reduced

        return reduced(module)

    def attach(self, model: nn.Module, block: Block, size: int) -> Attachment:
        """Put a prefix of length `size`, computed by a network, on the block's attentions.

        Raises:
            MethodError: The model was loaded with an attention implementation other than `sdpa` or `eager`.
        """
        from peftsearch.methods.layers.prefix_mlp import attach

        return attach(model, block.attentions, size, HIDDEN)
