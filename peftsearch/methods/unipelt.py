"""UniPELT: LoRA, a prefix and an adapter in one block, each behind a learned gate (arXiv 2110.07577).

Sec. 3.2: every part is scaled by a gate in (0, 1), sigma(w^T h + b) averaged over the tokens of an example, from the
hidden states that the part sees: LoRA's gates from the input of their map, an attention's prefix from its input, the
adapter's (after the feed-forward network alone, as in the authors' Pfeiffer setup) from its own input. The size is the
rank, the length and the width alike; the count is that of the parts and d + 1 a gate, one for each map of LoRA, each
attention and the adapter. w starts as a normal of 0.02 and b at zero: gates begin near one half. The prefix changes
the output at init. It does not merge: gates depend on the input.

Padding counts as tokens in a gate's mean, as in the authors' code. Left out: causal models, whose tokens would read
what stands behind them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from peftsearch.backbone.anatomy import Attention, Block, Projection
from peftsearch.methods.adapter import Adapter, Bottleneck
from peftsearch.methods.lora import LoRA
from peftsearch.methods.method import Attachment
from peftsearch.methods.prefix import Prefix, PrefixVectors, put_in_front
from peftsearch.methods.projections import add_delta, hook_outputs, slice_margins

GATE_STD = 0.02
_LORA, _PREFIX, _ADAPTER = LoRA(), Prefix(), Adapter(places_in_block=("ffn",), lr_scale=1.0)


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
    """LoRA on one map behind a gate; its `forward` is the hook on the map."""

    def __init__(self, projection: Projection, rank: int, scaling: float) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.empty(rank, projection.d_in))
        self.b = nn.Parameter(torch.zeros(projection.d_out, rank))
        self.gate = Gate(projection.d_in)
        self.scaling = scaling
        self.margins = slice_margins(projection.start, projection.d_out, projection.d_module, projection.n_pieces)
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
        """As `Bottleneck`, with what is added times the gate of its input."""
        low = functional.gelu(functional.linear(output.to(self.w_down.dtype), self.w_down, self.b_down))
        return add_delta(output, self.gate(output) * functional.linear(low, self.w_up, self.b_up), None)


class GatedPrefix(PrefixVectors):
    """A prefix behind a gate: keys and values of an example are scaled by it."""

    def __init__(self, attention: Attention, length: int) -> None:
        super().__init__(attention, length)
        self.gate = Gate(attention.query.d_in)
        self.opened: torch.Tensor | None = None
        """Gate of each example `(batch, 1, 1, 1)`, while the attention is running."""

    def see(self, module: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        """Work the gate out from the query map's input `(batch, seq, d)`; its output passes through."""
        self.opened = self.gate(args[0])[..., None]
        return output

    def vectors(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of each example, `(batch, kv_heads, l, head_dim)`."""
        assert self.opened is not None, "the query map has not run"
        opened, self.opened = self.opened, None
        return opened * self.keys, opened * self.values

    def forget(self) -> None:
        """Let go of gates that a forward left behind when it ended in an error before the attention."""
        self.opened = None


@dataclass(frozen=True, kw_only=True, slots=True)
class UniPelt:
    """Gated LoRA, prefix and adapter of one size."""

    name: str = "unipelt"
    paper: str = "2110.07577, sec. 3.2"
    places: str = "query and value projections, keys and values of the self-attention, after ffn"
    parts: tuple[LoRA, Prefix, Adapter] = (_LORA, _PREFIX, _ADAPTER)
    """What it is made of; each trains at its own rate, with its gates."""
    lr_scale: float = 1.0
    knob: str = "size"
    merges: bool = False
    changes: str = "none (added)"
    exact_at_init: bool = False

    def obstacle(self, block: Block) -> str | None:
        """That of the prefix; and the gates would let a token of a causal model read those behind it."""
        if block.attention.causal or block.cross_attention is not None:
            return f"{block.path} is causal, and the gates average over whole texts; use mam there"
        return self.parts[1].obstacle(block)

    def max_size(self, block: Block) -> int:
        """The smallest of its parts'."""
        return min(part.max_size(block) for part in self.parts)

    def count(self, block: Block, size: int) -> int:
        """The parts, and a gate for each map of LoRA, the prefix and the adapter."""
        gates = [p.d_in for p in self.parts[0].projections(block).values()]
        gates += [*(attention.query.d_in for attention in block.attentions), block.ffn.output.d_out]
        return sum(part.count(block, size) for part in self.parts) + sum(d + 1 for d in gates)

    def changed(self, block: Block, size: int) -> int:
        """What it adds; the backbone stays as it is."""
        return self.count(block, size)

    def label(self, block: Block, size: int) -> str:
        """The size of all parts: `r=l=m=2`."""
        return f"r=l=m={size}"

    def attach(self, model: nn.Module, block: Block, size: int) -> Attachment:
        """Attach the gated parts at this size."""
        maps = self.parts[0].projections(block)
        pairs = {name: GatedLowRank(p, size, self.parts[0].alpha / math.sqrt(size)) for name, p in maps.items()}
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
