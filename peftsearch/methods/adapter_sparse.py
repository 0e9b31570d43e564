"""SparseAdapter: wide bottleneck adapters pruned before training (arXiv 2210.04284).

Sec. 3.1 prunes the weights of an adapter at init by a score, and trains what is left; sec. 3.3, "large-sparse", widens
the bottleneck so that the kept weights are as many as those of a small dense adapter. Here the score is SNIP's, |g w|
summed over the priming batches (sec. 3.2), the width is four times m and a quarter of the weights is kept: the size is
m, and 2 d m + d + 4 m parameters a place (the weights of an adapter of width m, with the biases of the wide one). After
the attention and after the feed-forward network, as Houlsby's. Both maps start as truncated normals of 0.01, since a
map at zero has no score; so the output does change at init, by little. It does not merge.

Left out: the paper's other scores (random, magnitude, Erdos-Renyi, GraSP).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from peftsearch.backbone.anatomy import Block
from peftsearch.methods.adapter import INIT_STD, Adapter
from peftsearch.methods.method import Attachment
from peftsearch.methods.probing import Choice
from peftsearch.methods.projections import add_delta, hook_outputs

WIDENING = 4
"""How many times wider than the dense adapter of as many weights."""


class SparseBottleneck(nn.Module):
    """A wide adapter of which few weights are left; its `forward` is the hook on the output projection."""

    index: torch.Tensor
    start: torch.Tensor

    def __init__(self, hidden_size: int, size: int) -> None:
        super().__init__()
        self.width = WIDENING * size
        n_kept = 2 * hidden_size * size
        self.values = nn.Parameter(torch.zeros(n_kept))
        self.b_down = nn.Parameter(torch.zeros(self.width))
        self.b_up = nn.Parameter(torch.zeros(hidden_size))
        self.register_buffer("index", torch.full((n_kept,), -1))  # -1: not chosen yet
        self.choice = Choice("adapter_sparse")
        start = torch.empty(2 * hidden_size * self.width)
        nn.init.trunc_normal_(start, std=INIT_STD, a=-2 * INIT_STD, b=2 * INIT_STD)
        self.register_buffer("start", start, persistent=False)
        self.probe: torch.Tensor | None = None
        """All weights, while gradients are looked at."""
        self.scores: torch.Tensor | None = None

    def weights(self) -> torch.Tensor:
        """W_down and W_up laid end to end, `(2 d width,)`; after the choice zero but for what is kept."""
        if self.probe is not None:
            return self.probe
        if not self.choice.is_made(self.index):
            return self.start
        return self.start.new_zeros(self.start.shape).index_put((self.index,), self.values)

    def forward(self, module: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        """Add W_up f(W_down h + b_down) + b_up to a sub-layer's output h `(..., d)`, of the weights that are left."""
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
        self.index.copy_(scores.topk(len(self.index)).indices.sort().values)
        with torch.no_grad():
            self.values.copy_(self.start[self.index])

    def drop(self) -> None:
        """Let go of scores and probe."""
        self.probe = self.scores = None


@dataclass(frozen=True, kw_only=True, slots=True)
class SparseAdapter(Adapter):
    """A wide adapter pruned at init, after the attention and after the feed-forward network."""

    name: str = "adapter_sparse"
    paper: str = "2210.04284, sec. 3"
    lr_scale: float = 1.0
    exact_at_init: bool = False

    def max_size(self, block: Block) -> int:
        """A bottleneck as wide as the hidden size."""
        return max(1, block.hidden_size // WIDENING)

    def count(self, block: Block, size: int) -> int:
        """2 d m + d + 4 m a place."""
        return sum(2 * p.d_out * size + p.d_out + WIDENING * size for p in self.outputs(block).values())

    def label(self, block: Block, size: int) -> str:
        """Width, and share of the weights that are left: `m=8/4`."""
        return f"m={WIDENING * size}/{WIDENING}"

    def attach(self, model: nn.Module, block: Block, size: int) -> Attachment:
        """Hook a wide bottleneck on every place; `prime` chooses what is left of it."""
        outputs = self.outputs(block)
        modules = {place: SparseBottleneck(p.d_out, size) for place, p in outputs.items()}
        undo = hook_outputs(model, {place: (outputs[place].path, each.forward) for place, each in modules.items()})
        return Attachment(module=nn.ModuleDict(modules), undo=undo)
