"""The layers of SparseAdapter; `peftsearch.methods.adapter_sparse` names the paper."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn
from torch.nn import functional

from peftsearch.backbone.anatomy import Projection
from peftsearch.methods.layers.adapter import start_small
from peftsearch.methods.layers.attachment import Attachment
from peftsearch.methods.layers.probing import Choice, highest
from peftsearch.methods.layers.projections import add_delta, hook_forwards


class SparseBottleneck(nn.Module):
    """A wide adapter with few weights left; `forward` is the hook on the output projection."""

    index: torch.Tensor
    start: torch.Tensor

    def __init__(self, hidden_size: int, size: int, widening: int) -> None:
        super().__init__()
        self.width = widening * size
        n_kept = 2 * hidden_size * size
        self.values = nn.Parameter(torch.zeros(n_kept))
        self.b_down = nn.Parameter(torch.zeros(self.width))
        self.b_up = nn.Parameter(torch.zeros(hidden_size))
        self.register_buffer("index", torch.full((n_kept,), -1))  # -1: not chosen yet
        self.choice = Choice("adapter_sparse")
        start = start_small(torch.empty(2 * hidden_size * self.width))
        self.register_buffer("start", start, persistent=False)
        self.probe: torch.Tensor | None = None
        """All weights, during priming only."""
        self.scores: torch.Tensor | None = None

    def weights(self) -> torch.Tensor:
        """W_down and W_up laid end to end, `(2 d width,)`; after the choice all weights that were not kept are zero."""
        if self.probe is not None:
            return self.probe
        if not self.choice.is_made(self.index):
            return self.start
        return self.start.new_zeros(self.start.shape).index_put((self.index,), self.values)

    def forward(self, module: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        """Add W_up f(W_down h + b_down) + b_up, with the kept weights, to a sub-layer's output h `(..., d)`."""
        self.choice.require(self.index, self, self.probe)
        down, up = self.weights().chunk(2)
        low = functional.linear(output.to(down.dtype), down.view(self.width, -1), self.b_down)  # (..., width)
        return add_delta(output, functional.linear(functional.gelu(low), up.view(-1, self.width), self.b_up), None)

    def watch(self) -> None:
        """Let every weight take gradients."""
        self.probe, self.scores = self.start.clone().requires_grad_(), None

    def record(self) -> None:
        """Add |g w| of one batch (2210.04284, sec. 3.2)."""
        assert self.probe is not None, "watch first"
        if self.probe.grad is not None:
            score = (self.probe.grad * self.probe.detach()).abs()
            self.scores = score if self.scores is None else self.scores + score
            self.probe.grad = None

    def choose(self) -> None:
        """Keep the weights with the highest scores, at their initial values."""
        scores = torch.zeros_like(self.start) if self.scores is None else self.scores
        self.index.copy_(highest(scores, len(self.index)))
        with torch.no_grad():
            self.values.copy_(self.start[self.index])

    def drop(self) -> None:
        """Free the scores and the probe."""
        self.probe = self.scores = None


def attach(model: nn.Module, outputs: Mapping[str, Projection], size: int, widening: int) -> Attachment:
    """Hook a wide bottleneck behind every output projection; `prime` chooses the weights to keep."""
    modules = nn.ModuleDict({place: SparseBottleneck(p.d_out, size, widening) for place, p in outputs.items()})
    return Attachment(module=modules, undo=hook_forwards(model, outputs, modules))
