"""The layers of bottleneck adapters; `peftsearch.methods.adapter` names the papers and the equation."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn
from torch.nn import functional

from peftsearch.backbone.anatomy import Projection
from peftsearch.methods.layers.attachment import Attachment
from peftsearch.methods.layers.projections import add_delta, hook_forwards

INIT_STD = 0.01
"""Standard deviation of the normal that W_down starts from, truncated at two deviations (1902.00751 sec. 3.6)."""


def start_small(weights: torch.Tensor) -> torch.Tensor:
    """Fill weights in place from a normal of `INIT_STD`, truncated at two deviations."""
    return nn.init.trunc_normal_(weights, std=INIT_STD, a=-2 * INIT_STD, b=2 * INIT_STD)


class Bottleneck(nn.Module):
    """W_down, f, W_up at one place; `forward` is the hook on the output projection."""

    def __init__(self, hidden_size: int, width: int) -> None:
        super().__init__()
        self.w_down = nn.Parameter(torch.empty(width, hidden_size))
        self.b_down = nn.Parameter(torch.zeros(width))
        self.w_up = nn.Parameter(torch.zeros(hidden_size, width))
        self.b_up = nn.Parameter(torch.zeros(hidden_size))
        start_small(self.w_down)

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


def attach(model: nn.Module, outputs: Mapping[str, Projection], width: int) -> Attachment:
    """Hook a bottleneck behind every output projection."""
    modules = nn.ModuleDict({place: Bottleneck(p.d_out, width) for place, p in outputs.items()})
    return Attachment(module=modules, undo=hook_forwards(model, outputs, modules))
