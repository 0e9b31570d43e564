"""The layers of DoRA; `peftsearch.methods.dora` names the paper and the equations."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import nn
from torch.nn import functional

from peftsearch.backbone.anatomy import Projection
from peftsearch.backbone.quantised import dequantised, quantised_maps
from peftsearch.errors import MethodError
from peftsearch.methods.layers.attachment import Attachment
from peftsearch.methods.layers.projections import add_delta, fold_weight, hook_forwards, slice_rows
from peftsearch.methods.projections import margins_of


class Decomposed(nn.Module):
    """A, B and the magnitude of one projection; `forward` is the hook on the projection's module."""

    def __init__(self, projection: Projection, rank: int, scaling: float) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.empty(rank, projection.d_in))
        self.b = nn.Parameter(torch.zeros(projection.d_out, rank))
        self.magnitude = nn.Parameter(torch.zeros(projection.d_out))
        """The trained difference m - ||W_0||."""
        self.scaling = scaling
        self.rows = slice_rows(projection)
        self.margins = margins_of(projection)
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
    """The weight of a linear map `(d_out, d_in)`, unpacked if bitsandbytes packed it."""
    if next(quantised_maps(module), None) is not None:
        return dequantised(module)
    weight = module.get_parameter("weight")
    # transformers' Conv1D keeps its weight as (d_in, d_out).
    return weight if isinstance(module, nn.Linear) else weight.t()


def attach(model: nn.Module, targets: Mapping[str, Projection], rank: int, scaling: float) -> Attachment:
    """Hook A, B and a magnitude on every target.

    Raises:
        MethodError: A target's weights are packed by another library than bitsandbytes.
    """
    for projection in targets.values():
        _check_weight(model.get_submodule(projection.path), projection.path)
    modules = nn.ModuleDict({name: Decomposed(projection, rank, scaling) for name, projection in targets.items()})
    return Attachment(module=modules, undo=hook_forwards(model, targets, modules))


def _check_weight(module: nn.Module, path: str) -> None:
    dtype = module.get_parameter("weight").dtype
    if not dtype.is_floating_point and next(quantised_maps(module), None) is None:
        raise MethodError(
            f"dora: cannot compute the norm of {path}, a {type(module).__name__} with weights of {dtype}: the weights "
            "must be floating-point or packed by bitsandbytes; use lora there"
        )
