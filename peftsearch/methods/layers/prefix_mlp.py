"""The network that makes a prefix; `peftsearch.methods.prefix_mlp` names the paper."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from peftsearch.backbone.anatomy import Attention
from peftsearch.methods.layers.attachment import Attachment
from peftsearch.methods.layers.prefix import INIT_STD, put_in_front


class PrefixNetwork(nn.Module):
    """P' and the network that turns it into keys and values of a block's attentions."""

    def __init__(self, attentions: tuple[Attention, ...], length: int, hidden: int) -> None:
        super().__init__()
        self.shapes = tuple((length, 2, attention.n_kv_heads, attention.head_dim) for attention in attentions)
        self.embedding = nn.Parameter(torch.empty(length, hidden).normal_())
        self.hidden = nn.Linear(hidden, hidden)
        self.last = nn.Linear(hidden, sum(2 * attention.d_kv for attention in attentions))
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


def attach(model: nn.Module, attentions: tuple[Attention, ...], length: int, hidden: int) -> Attachment:
    """Put a prefix that a network computes on each attention of a block.

    Raises:
        MethodError: The model was loaded with an attention implementation other than `sdpa` or `eager`.
    """
    network = PrefixNetwork(attentions, length, hidden)
    undo: list[Callable[[], object]] = []
    for number, attention in enumerate(attentions):
        undo += put_in_front(model, attention, PartOfNetwork(network=network, number=number))
    return Attachment(module=network, undo=undo)


def reduced(module: nn.Module) -> dict[str, torch.Tensor]:
    """The vectors as `prefix` holds them."""
    assert isinstance(module, PrefixNetwork), "the module is of this method"
    kept: dict[str, torch.Tensor] = {}
    for number, where in enumerate(("", "cross.")[: len(module.shapes)]):
        keys, values = module.made(number)
        kept |= {f"{where}keys": keys, f"{where}values": values}
    return kept
