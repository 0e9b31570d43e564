"""The layers of UniPELT; `peftsearch.methods.unipelt` names the paper."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import nn
from torch.nn import functional

from peftsearch.backbone.anatomy import Attention, Block, Projection
from peftsearch.methods.layers.adapter import Bottleneck
from peftsearch.methods.layers.attachment import Attachment
from peftsearch.methods.layers.prefix import PrefixVectors, put_in_front
from peftsearch.methods.layers.projections import add_delta, hook_outputs
from peftsearch.methods.projections import margins_of

GATE_STD = 0.02
"""Standard deviation of the normal that w starts from."""


class Gate(nn.Module):
    """A number in (0, 1) for each example."""

    def __init__(self, d_in: int) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.empty(d_in).normal_(std=GATE_STD))
        self.b = nn.Parameter(torch.zeros(()))

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Mean over tokens of sigma(w h + b) for hidden states `(batch, seq, d)`, as `(batch, 1, 1)`."""
        opened = torch.sigmoid(
            functional.linear(hidden.to(self.w.dtype), self.w[None], self.b[None])
        )  # (batch, seq, 1)
        return opened.mean(dim=1, keepdim=True)


class GatedLowRank(nn.Module):
    """LoRA on one map behind a gate; `forward` is the hook on the map."""

    def __init__(self, projection: Projection, rank: int, scaling: float) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.empty(rank, projection.d_in))
        self.b = nn.Parameter(torch.zeros(projection.d_out, rank))
        self.gate = Gate(projection.d_in)
        self.scaling = scaling
        self.margins = margins_of(projection)
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))

    def forward(self, module: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        """Add gate(x) * scaling * B A x, for inputs x `(batch, seq, d_in)`, to the output `(batch, seq, d_module)`."""
        low = functional.linear(args[0].to(self.a.dtype), self.a)  # (batch, seq, rank)
        return add_delta(output, functional.linear(self.gate(args[0]) * low, self.b) * self.scaling, self.margins)


class GatedBottleneck(Bottleneck):
    """An adapter behind a gate."""

    def __init__(self, hidden_size: int, width: int) -> None:
        super().__init__(hidden_size, width)
        self.gate = Gate(hidden_size)

    def forward(self, module: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        """Add the bottleneck's delta, multiplied by the gate, to the output h `(batch, seq, d)`."""
        low = functional.gelu(functional.linear(output.to(self.w_down.dtype), self.w_down, self.b_down))
        return add_delta(output, self.gate(output) * functional.linear(low, self.w_up, self.b_up), None)


class GatedPrefix(PrefixVectors):
    """A prefix behind a gate, which scales the keys and values of each example."""

    def __init__(self, attention: Attention, length: int) -> None:
        super().__init__(attention, length)
        self.gate = Gate(attention.query.d_in)
        self.opened: torch.Tensor | None = None
        """Gate of each example `(batch, 1, 1, 1)`; set only while the attention is running."""

    def see(self, module: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        """Compute the gate from the query map's input `(batch, seq, d)`; the map's output is returned unchanged."""
        self.opened = self.gate(args[0])[..., None]
        return output

    def vectors(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of each example, `(batch, kv_heads, l, head_dim)`."""
        assert self.opened is not None, "the query map has not run"
        opened, self.opened = self.opened, None
        return opened * self.keys, opened * self.values

    def forget(self) -> None:
        """Release the gates that a forward left behind by failing before the attention."""
        self.opened = None


def attach(model: nn.Module, block: Block, maps: Mapping[str, Projection], size: int, scaling: float) -> Attachment:
    """Attach the gated parts at one size.

    Args:
        model: The model that the paths start from.
        block: The block that gets the prefixes and the adapter.
        maps: The maps that get LoRA, by name.
        size: Rank, length and width.
        scaling: Factor of LoRA's product.
    """
    pairs = {name: GatedLowRank(p, size, scaling) for name, p in maps.items()}
    prefixes = [GatedPrefix(attention, size) for attention in block.attentions]
    adapter = GatedBottleneck(block.ffn.output.d_out, size)
    hooks = {name: (maps[name].path, pair.forward) for name, pair in pairs.items()}
    hooks["ffn"] = (block.ffn.output.path, adapter.forward)
    undo: list[Callable[[], object]] = []
    for attention, prefix in zip(block.attentions, prefixes, strict=True):
        hooks[f"see {attention.path}"] = (attention.query.path, prefix.see)
        undo += [*put_in_front(model, attention, prefix), prefix.forget]
    parts: dict[str, nn.Module] = {
        "lora": nn.ModuleDict(pairs),
        "prefix": nn.ModuleList(prefixes),
        "adapter": adapter,
    }
    return Attachment(module=nn.ModuleDict(parts), undo=[*undo, *hook_outputs(model, hooks)])
