"""The layer of the parallel adapter; `peftsearch.methods.adapter_parallel` names the paper."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional

from peftsearch.backbone.anatomy import Block
from peftsearch.methods.layers.attachment import Attachment
from peftsearch.methods.layers.beside import Beside, attach_beside


class ParallelBottleneck(Beside):
    """W_down, GELU, W_up around one feed-forward network."""

    def __init__(self, hidden_size: int, width: int, scaling: float) -> None:
        super().__init__()
        self.w_down = nn.Parameter(torch.empty(width, hidden_size))
        self.b_down = nn.Parameter(torch.zeros(width))
        self.w_up = nn.Parameter(torch.zeros(hidden_size, width))
        self.b_up = nn.Parameter(torch.zeros(hidden_size))
        self.scaling = scaling
        nn.init.kaiming_uniform_(self.w_down, a=math.sqrt(5))

    def delta(self, x: torch.Tensor) -> torch.Tensor:
        """Compute s (W_up gelu(W_down x + b_down) + b_up) (2110.04366 table 1 and sec. 4.5) for x `(..., d)`."""
        low = functional.gelu(functional.linear(x.to(self.w_down.dtype), self.w_down, self.b_down))  # (..., width)
        return self.scaling * functional.linear(low, self.w_up, self.b_up)


def attach(model: nn.Module, block: Block, width: int, scaling: float) -> Attachment:
    """Hook a bottleneck on the first and the last map of a block's feed-forward network."""
    return attach_beside(model, block.ffn, ParallelBottleneck(block.hidden_size, width, scaling))
