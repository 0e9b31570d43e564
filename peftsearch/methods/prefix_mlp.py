"""Prefix tuning with reparametrisation: keys and values come out of a small network (arXiv 2101.00190, sec. 4.3).

P = MLP(P') with a smaller matrix P' in R^(l x h), a hidden layer and tanh; only P is kept after training, where the
placement becomes one of `prefix`. Here each block has a network of its own (the paper's serves all blocks), with
h = 8 for P' and the hidden layer (the paper's 512 and 800 would be far above the budgets that are searched), so that
trained are l h + h (h + 1) + 2 d_kv (h + 1) parameters, and 2 l d_kv are kept. The size is the length l, from 1 to 200.
P' starts as a normal of 1, the network as torch starts it with its last layer scaled to give vectors of 0.02 as the
plain prefix has; so the output does change at init. It does not merge.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from peftsearch.backbone.anatomy import Attention, Block
from peftsearch.methods.method import Attachment
from peftsearch.methods.prefix import INIT_STD, Prefix, put_in_front

HIDDEN = 8
"""Width of P' and of the hidden layer."""


class PrefixNetwork(nn.Module):
    """P' and the network that makes the keys and values of a block's attentions of it."""

    def __init__(self, attentions: tuple[Attention, ...], length: int) -> None:
        super().__init__()
        self.shapes = tuple((length, 2, attention.n_kv_heads, attention.head_dim) for attention in attentions)
        self.embedding = nn.Parameter(torch.empty(length, HIDDEN).normal_())
        self.hidden = nn.Linear(HIDDEN, HIDDEN)
        self.last = nn.Linear(HIDDEN, sum(2 * attention.d_kv for attention in attentions))
        nn.init.normal_(self.last.weight, std=INIT_STD)
        nn.init.zeros_(self.last.bias)

    def made(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of the block's first or second attention, `(kv_heads, l, head_dim)`."""
        out = self.last(torch.tanh(self.hidden(self.embedding)))  # (l, all widths)
        own = out.split([2 * kv_heads * head_dim for _, _, kv_heads, head_dim in self.shapes], dim=1)[number]
        keys, values = own.view(self.shapes[number]).permute(1, 2, 0, 3)
        return keys, values


@dataclass(frozen=True, kw_only=True, slots=True)
class PartOfNetwork:
    """The prefix of one attention."""

    network: PrefixNetwork
    number: int
    """0 for the self-attention, 1 for the cross-attention."""

    def vectors(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values, `(kv_heads, l, head_dim)`."""
        return self.network.made(self.number)


@dataclass(frozen=True, kw_only=True, slots=True)
class PrefixMLP(Prefix):
    """A prefix out of a small network, which is dropped after training."""

    name: str = "prefix_mlp"
    paper: str = "2101.00190, sec. 4.3"
    lr_scale: float = 1.5
    becomes: str = "prefix"

    def count(self, block: Block, size: int) -> int:
        """P' and the two layers: l h + h (h + 1) + 2 d_kv (h + 1), with the d_kv of all attentions."""
        d_kv = sum(attention.d_kv for attention in block.attentions)
        return size * HIDDEN + HIDDEN * (HIDDEN + 1) + 2 * d_kv * (HIDDEN + 1)

    def changed(self, block: Block, size: int) -> int:
        """The keys and values that are kept: 2 l d_kv."""
        return Prefix().count(block, size)

    def reduced_size(self, block: Block, size: int) -> int:
        """The length stays."""
        return size

    def reduced(self, module: nn.Module, block: Block) -> dict[str, torch.Tensor]:
        """The vectors as `prefix` holds them."""
        assert isinstance(module, PrefixNetwork), "the module is of this method"
        keys, values = module.made(0)
        kept = {"keys": keys, "values": values}
        if block.cross_attention is not None:
            kept |= dict(zip(("cross.keys", "cross.values"), module.made(1), strict=True))
        return kept

    def attach(self, model: nn.Module, block: Block, size: int) -> Attachment:
        """Hang a prefix of length `size`, made by a network, on the block's attention.

        Raises:
            MethodError: As `Prefix.attach`.
        """
        network = PrefixNetwork(block.attentions, size)
        undo: list[Callable[[], object]] = []
        for number, attention in enumerate(block.attentions):
            undo += put_in_front(model, attention, PartOfNetwork(network=network, number=number))
        return Attachment(module=network, undo=undo)
