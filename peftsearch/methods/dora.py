"""DoRA, weight-decomposed low-rank adaptation (arXiv 2402.09353).

Eq. 5: W' = m (W_0 + s B A) / ||W_0 + s B A||, with a trained magnitude m and a direction that LoRA changes. The norm is
taken over the inputs of each output, as in HF peft: m has d_out entries. By default it acts on the query and value
projections, in a fused map on their slices alone. The size is the rank r, from 1 to the smallest width of a target;
r (d_in + d_out) + d_out parameters a target. As sec. 4.3 proposes, no gradient flows through the norm. A, B and the
scale s = alpha / sqrt(r) are as in `lora`.

m is stored as ||W_0|| + delta with delta = 0: the same functions and, without weight decay, the same Adam updates as
training m itself. Both norms are computed alike in every forward pass, so that their quotient at init is one exactly
and the output is unchanged, on any device. It merges. The weights of a map that bitsandbytes has packed are unpacked
for the norm; other packed weights are refused.

Left out: dropout on x, and the decoder's cross-attention.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.nn import functional

from peftsearch.backbone.anatomy import Block, Projection
from peftsearch.backbone.quantised import dequantised, quantised_maps
from peftsearch.errors import MethodError
from peftsearch.methods.lora import LoRA
from peftsearch.methods.method import Attachment
from peftsearch.methods.projections import add_delta, fold_weight, hook_outputs, slice_margins, slice_rows


class Decomposed(nn.Module):
    """A, B and the magnitude of one projection; its `forward` is the hook on the projection's module."""

    def __init__(self, projection: Projection, rank: int, scaling: float) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.empty(rank, projection.d_in))
        self.b = nn.Parameter(torch.zeros(projection.d_out, rank))
        self.magnitude = nn.Parameter(torch.zeros(projection.d_out))
        """m - ||W_0||."""
        self.scaling = scaling
        self.rows = slice_rows(projection)
        self.margins = slice_margins(projection.start, projection.d_out, projection.d_module, projection.n_pieces)
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))

    def forward(self, module: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        """Turn W_0 x into W' x (2402.09353 eq. 5).

        Args:
            module: The projection's module.
            args: Its input x `(..., d_in)`.
            output: Its output W_0 x + bias `(..., d_module)`.

        Returns:
            `(..., d_module)`
        """
        ratio = self.ratio(self.weight(module))
        plain = output[..., self.rows].to(self.a.dtype)
        if getattr(module, "bias", None) is not None:
            plain = plain - module.get_parameter("bias")[self.rows]
        low = functional.linear(args[0].to(self.a.dtype), self.a)  # (..., rank)
        delta = (ratio - 1) * plain + ratio * self.scaling * functional.linear(low, self.b)
        return add_delta(output, delta, self.margins)

    def fold(self, module: nn.Module) -> dict[str, torch.Tensor] | None:
        """W', in the slice of a fused map alone; see `Foldable`."""
        weight = self.weight(module)
        delta = self.ratio(weight)[:, None] * (weight + self.scaling * self.b @ self.a) - weight  # (d_slice, d_in)
        return fold_weight(module, delta, self.margins)

    def weight(self, module: nn.Module) -> torch.Tensor:
        """W_0 `(d_slice, d_in)`, in the dtype of A."""
        return read_weight(module)[self.rows].to(self.a.dtype)

    def ratio(self, weight: torch.Tensor) -> torch.Tensor:
        """The quotient m / ||W_0 + s B A|| of each row; its gradient is that of m alone (sec. 4.3).

        Args:
            weight: W_0 `(d_slice, d_in)`.

        Returns:
            `(d_slice,)`; 0 for a row of zeros, which has no direction.
        """
        with torch.no_grad():
            at_init = torch.linalg.vector_norm(weight, dim=1)
            now = torch.linalg.vector_norm(weight + self.scaling * self.b @ self.a, dim=1)
            now = now.clamp_min(torch.finfo(now.dtype).tiny)
        quotient: torch.Tensor = (at_init + self.magnitude) / now
        return quotient


def read_weight(module: nn.Module) -> torch.Tensor:
    """The weight of a linear map `(d_out, d_in)`, unpacked where bitsandbytes has packed it."""
    if next(quantised_maps(module), None) is not None:
        return dequantised(module)
    weight = module.get_parameter("weight")
    # transformers' Conv1D keeps its weight as (d_in, d_out).
    return weight if isinstance(module, nn.Linear) else weight.t()


def _check_weight(module: nn.Module, path: str) -> None:
    dtype = module.get_parameter("weight").dtype
    if not dtype.is_floating_point and next(quantised_maps(module), None) is None:
        raise MethodError(
            f"dora: the norm of {path}, a {type(module).__name__} with weights of {dtype}, needs "
            "numbers of full precision or bitsandbytes; use lora there"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class DoRA:
    """A trained magnitude and LoRA's direction on chosen projections of a block."""

    name: str = "dora"
    paper: str = "2402.09353, eq. 5"
    lora: LoRA = field(default_factory=LoRA)
    """Says the projections and the scale of B A."""
    lr_scale: float = 1.0
    knob: str = "rank"
    merges: bool = True
    changes: str = "whole matrices"
    exact_at_init: bool = True

    @property
    def places(self) -> str:
        """The projections, in words."""
        return self.lora.places

    def obstacle(self, block: Block) -> str | None:
        """None: every block has linear maps."""
        return None

    def max_size(self, block: Block) -> int:
        """The smallest width of a target: a higher rank adds nothing."""
        return self.lora.max_size(block)

    def count(self, block: Block, size: int) -> int:
        """The sum of r (d_in + d_out) + d_out over the targets."""
        return self.lora.count(block, size) + sum(p.d_out for p in self.lora.projections(block).values())

    def changed(self, block: Block, size: int) -> int:
        """All of the matrices that it acts on."""
        return self.lora.changed(block, size)

    def label(self, block: Block, size: int) -> str:
        """The rank: `r=4`."""
        return self.lora.label(block, size)

    def attach(self, model: nn.Module, block: Block, size: int) -> Attachment:
        """Hook A, B and a magnitude on every target.

        Raises:
            MethodError: A target's weights are packed by another library than bitsandbytes.
        """
        targets = self.lora.projections(block)
        for projection in targets.values():
            _check_weight(model.get_submodule(projection.path), projection.path)
        scaling = self.lora.alpha / math.sqrt(size)
        modules = {name: Decomposed(projection, size, scaling) for name, projection in targets.items()}
        undo = hook_outputs(model, {name: (targets[name].path, m.forward) for name, m in modules.items()})
        return Attachment(module=nn.ModuleDict(modules), undo=undo)
