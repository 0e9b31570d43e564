"""The scaled parallel adapter beside the feed-forward network (arXiv 2110.04366).

2110.04366 sec. 3.3 and 4.5: FFN(x) + s (W_up f(W_down x + b_down) + b_up) with s = 4. The size is the width m of the
bottleneck, from 1 to the hidden size; 2 d m + d + m parameters. It starts as the paper's scaled variant does, like
LoRA: W_down Kaiming uniform with a = sqrt 5, W_up and the biases at zero, so the output is unchanged at init. It does
not merge.

f is GELU, as in the serial adapters here, and not the paper's ReLU: small budgets give widths of 1 to 5, and a ReLU
unit that is off for every token at the start never trains.

What it sees is the input x of the network's first map, gate and up alike: in pre-norm blocks (GPT-2, Llama) the hidden
state after the norm, in post-norm blocks (BERT) the output of the attention sub-layer. As the serial adapters do, it
adds to the output projection's result, in blocks with dropout there before the dropout. It adds last: a serial adapter
on the same block does not see its delta, as in AutoPEFT's code (arXiv 2301.12132).

Left out: the parallel adapter of the attention, and a learned s.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from peftsearch.backbone.anatomy import Block
from peftsearch.methods.method import Attachment
from peftsearch.methods.projections import Tap, add_delta, hook_outputs


class ParallelBottleneck(nn.Module):
    """W_down, GELU, W_up around one feed-forward network; two hooks, on its first map and on its last."""

    def __init__(self, hidden_size: int, width: int, scaling: float) -> None:
        super().__init__()
        self.w_down = nn.Parameter(torch.empty(width, hidden_size))
        self.b_down = nn.Parameter(torch.zeros(width))
        self.w_up = nn.Parameter(torch.zeros(hidden_size, width))
        self.b_up = nn.Parameter(torch.zeros(hidden_size))
        self.scaling = scaling
        self.tap = Tap()
        nn.init.kaiming_uniform_(self.w_down, a=math.sqrt(5))

    def forward(self, module: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        """Add s (W_up gelu(W_down x + b_down) + b_up) to the network's output (2110.04366 table 1 and sec. 4.5).

        Args:
            module: The output projection.
            args: Its input; not used.
            output: Its output `(..., d)`.

        Returns:
            `(..., d)`
        """
        x = self.tap.take().to(self.w_down.dtype)
        low = functional.gelu(functional.linear(x, self.w_down, self.b_down))  # (..., width)
        return add_delta(output, self.scaling * functional.linear(low, self.w_up, self.b_up), None)


@dataclass(frozen=True, kw_only=True, slots=True)
class ParallelAdapter:
    """A bottleneck from the feed-forward network's input to its output."""

    name: str = "adapter_parallel"
    paper: str = "2110.04366, sec. 3.3 and 4.5"
    places: str = "beside ffn"
    scaling: float = 4.0
    """The s of the paper, which multiplies the delta."""
    lr_scale: float = 0.3
    """The factor s and the larger initial W_down make its steps larger than a serial adapter's (measured on TREC)."""
    knob: str = "width"
    merges: bool = False
    changes: str = "none (added)"
    exact_at_init: bool = True

    def obstacle(self, block: Block) -> str | None:
        """None: every block has a feed-forward network."""
        return None

    def max_size(self, block: Block) -> int:
        """The hidden size: a wider layer is no bottleneck."""
        return block.hidden_size

    def count(self, block: Block, size: int) -> int:
        """2 d m + d + m."""
        return 2 * block.hidden_size * size + block.hidden_size + size

    def changed(self, block: Block, size: int) -> int:
        """What it adds; the backbone stays as it is."""
        return self.count(block, size)

    def label(self, block: Block, size: int) -> str:
        """The width of the bottleneck: `m=8`."""
        return f"m={size}"

    def attach(self, model: nn.Module, block: Block, size: int) -> Attachment:
        """Hook a bottleneck of width `size` on the network's first and last map."""
        module = ParallelBottleneck(block.hidden_size, size, self.scaling)
        hooks = {"in": (block.ffn.inputs[0].path, module.tap.see), "out": (block.ffn.output.path, module.forward)}
        return Attachment(module=module, undo=[*hook_outputs(model, hooks), module.tap.forget])
