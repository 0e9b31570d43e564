"""Bottleneck adapters, in the places of Houlsby (arXiv 1902.00751) or of Pfeiffer (arXiv 2005.00247).

1902.00751 sec. 2.1: h + W_up f(W_down h + b_down) + b_up, applied to the output of a sub-layer, after its projection
back to the hidden width and before the residual is added. Houlsby puts one after every sub-layer (the attention, a
decoder's cross-attention, the feed-forward network), Pfeiffer (2005.00247) one after the feed-forward network. The size
is the width m of the bottleneck, from 1 to the hidden size; 2 d m + d + m parameters a place. f is GELU, as in
Houlsby's own code.
W_down starts as a normal truncated at two standard deviations of 0.01 (1902.00751 sec. 3.6), W_up and the
biases at zero: the output is unchanged at init. It does not merge.

It sees the output projection's result: in blocks with dropout there it acts before the dropout, where the paper's
acts after it. Pfeiffer's choice of residual and norms around the bottleneck is left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from peftsearch.backbone.anatomy import Block, Projection
from peftsearch.methods.method import Attachment
from peftsearch.methods.projections import add_delta, hook_outputs, name_projections

INIT_STD = 0.01


class Bottleneck(nn.Module):
    """W_down, f, W_up of one place; its `forward` is the hook on the output projection."""

    def __init__(self, hidden_size: int, width: int) -> None:
        super().__init__()
        self.w_down = nn.Parameter(torch.empty(width, hidden_size))
        self.b_down = nn.Parameter(torch.zeros(width))
        self.w_up = nn.Parameter(torch.zeros(hidden_size, width))
        self.b_up = nn.Parameter(torch.zeros(hidden_size))
        nn.init.trunc_normal_(self.w_down, std=INIT_STD, a=-2 * INIT_STD, b=2 * INIT_STD)

    def forward(self, module: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        """Add W_up f(W_down h + b_down) + b_up to a sub-layer's output (1902.00751 sec. 2.1).

        Args:
            module: The output projection.
            args: Its input; not used.
            output: Its output h `(..., d)`.

        Returns:
            `(..., d)`
        """
        low = functional.gelu(functional.linear(output.to(self.w_down.dtype), self.w_down, self.b_down))  # (..., width)
        return add_delta(output, functional.linear(low, self.w_up, self.b_up), None)


@dataclass(frozen=True, kw_only=True, slots=True)
class Adapter:
    """A bottleneck after the attention, after the feed-forward network, or after both."""

    name: str = "adapter"
    paper: str = "1902.00751, sec. 2.1"
    places_in_block: tuple[str, ...] = ("attention", "ffn")
    """After which sub-layers it acts: `attention` (every one of a block), `ffn`."""
    lr_scale: float = 0.7
    knob: str = "width"
    merges: bool = False
    changes: str = "none (added)"
    exact_at_init: bool = True

    @property
    def places(self) -> str:
        """The places, in words."""
        return "after " + " and after ".join(self.places_in_block)

    def outputs(self, block: Block) -> dict[str, Projection]:
        """The output projections it acts behind in this block, by sub-layer."""
        named = name_projections(block)
        sublayers = {"attention": "output", "cross_attention": "cross_output", "ffn": "ffn_out"}
        return {
            sublayer: named[name]
            for sublayer, name in sublayers.items()
            if sublayer.removeprefix("cross_") in self.places_in_block and name in named
        }

    def obstacle(self, block: Block) -> str | None:
        """None: every block has both sub-layers."""
        return None

    def max_size(self, block: Block) -> int:
        """The hidden size: a wider layer is no bottleneck."""
        return block.hidden_size

    def count(self, block: Block, size: int) -> int:
        """2 d m + d + m a place."""
        return sum(2 * p.d_out * size + p.d_out + size for p in self.outputs(block).values())

    def changed(self, block: Block, size: int) -> int:
        """What it adds; the backbone stays as it is."""
        return self.count(block, size)

    def label(self, block: Block, size: int) -> str:
        """The width of the bottleneck: `m=8`."""
        return f"m={size}"

    def attach(self, model: nn.Module, block: Block, size: int) -> Attachment:
        """Hook a bottleneck of width `size` on every place."""
        outputs = self.outputs(block)
        modules = {place: Bottleneck(projection.d_out, size) for place, projection in outputs.items()}
        undo = hook_outputs(model, {place: (outputs[place].path, m.forward) for place, m in modules.items()})
        return Attachment(module=nn.ModuleDict(modules), undo=undo)
