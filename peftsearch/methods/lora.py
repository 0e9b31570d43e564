"""LoRA, low-rank adaptation (arXiv 2106.09685).

Eq. 3: h = W_0 x + (alpha / r) B A x, with A in R^(r x d_in), B in R^(d_out x r) and W_0 frozen. By default it acts on
the query and value projections (sec. 4.2, 5.1), a decoder's cross-attention included; in a fused map it acts on their
slices alone. The size is the rank r, from 1 to the smallest width of a target; r (d_in + d_out) parameters a target. A
starts as HF peft starts it (Kaiming uniform with a = sqrt 5), B at zero, so the output is unchanged at init. It merges:
W = W_0 + s B A.

The scale s is alpha / sqrt(r) (rank-stabilised LoRA, arXiv 2312.03732) and not the paper's alpha / r: a search fits
ranks to budgets, and one learning rate has to serve them all.

Left out: dropout on x.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from peftsearch.backbone.anatomy import Block, Projection
from peftsearch.methods.method import Attachment
from peftsearch.methods.projections import (
    OnTargets,
    add_delta,
    fold_weight,
    hook_outputs,
    slice_margins,
)


class LowRank(nn.Module):
    """The pair A, B of one projection; its `forward` is the hook on the projection's module."""

    def __init__(self, projection: Projection, rank: int, scaling: float) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.empty(rank, projection.d_in))
        self.b = nn.Parameter(torch.zeros(projection.d_out, rank))
        self.scaling = scaling
        self.margins = slice_margins(projection.start, projection.d_out, projection.d_module, projection.n_pieces)
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))

    def forward(self, module: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        """Add scaling * B A x (2106.09685 eq. 3).

        Args:
            module: The projection's module.
            args: Its input `(..., d_in)`.
            output: Its output `(..., d_module)`.

        Returns:
            `(..., d_module)`
        """
        low = functional.linear(args[0].to(self.a.dtype), self.a)  # (..., rank)
        if self.margins is not None or low.dtype != output.dtype:
            return add_delta(output, functional.linear(low, self.b) * self.scaling, self.margins)
        # One fused kernel instead of product, scaling and sum: no delta of the output's size is ever stored.
        flat = torch.addmm(output.flatten(0, -2), low.flatten(0, -2), self.b.t(), alpha=self.scaling)
        return flat.view(output.shape)

    def fold(self, module: nn.Module) -> dict[str, torch.Tensor] | None:
        """W_0 + s B A, in the slice of a fused map alone; see `Foldable`."""
        return fold_weight(module, self.scaling * self.b @ self.a, self.margins)


@dataclass(frozen=True, kw_only=True, slots=True)
class LoRA(OnTargets):
    """LoRA on chosen projections of a block."""

    name: str = "lora"
    paper: str = "2106.09685, eq. 3"
    alpha: float = 1.0
    """The delta is scaled by alpha / sqrt(r), as rank-stabilised LoRA does (2312.03732; HF peft's `use_rslora`)."""
    lr_scale: float = 1.0
    knob: str = "rank"

    def obstacle(self, block: Block) -> str | None:
        """None: every block has linear maps."""
        return None

    def max_size(self, block: Block) -> int:
        """The smallest width of a target: a higher rank adds nothing."""
        return min(min(p.d_in, p.d_out) for p in self.projections(block).values())

    def count(self, block: Block, size: int) -> int:
        """The sum of r (d_in + d_out) over the targets."""
        return size * sum(p.d_in + p.d_out for p in self.projections(block).values())

    def label(self, block: Block, size: int) -> str:
        """The rank: `r=4`."""
        return f"r={size}"

    def attach(self, model: nn.Module, block: Block, size: int) -> Attachment:
        """Hook an A, B pair of rank `size` on every target."""
        targets = self.projections(block)
        pairs = {name: LowRank(projection, size, self.alpha / math.sqrt(size)) for name, projection in targets.items()}
        undo = hook_outputs(model, {name: (targets[name].path, pair.forward) for name, pair in pairs.items()})
        return Attachment(module=nn.ModuleDict(pairs), undo=undo)
