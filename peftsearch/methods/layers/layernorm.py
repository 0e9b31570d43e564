"""The layers of LayerNorm tuning; `peftsearch.methods.layernorm` names the papers."""

from __future__ import annotations

import torch
from torch import nn

from peftsearch.backbone.anatomy import Norm
from peftsearch.backbone.private_torch import copy_with
from peftsearch.methods.layers.attachment import Attachment
from peftsearch.methods.layers.projections import folded, hook_forwards


class NormDelta(nn.Module):
    """The deltas of one norm; `forward` is the hook on the norm."""

    def __init__(self, norm: Norm, unit: float, bias: bool) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.zeros(norm.width))
        self.bias = nn.Parameter(torch.zeros(norm.width)) if bias else None
        self.unit = unit
        """The weight at which the norm's gain is one."""

    def forward(self, module: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        """Add delta_g x_hat + delta_b, where x_hat is the normalised input.

        Args:
            module: The norm.
            args: Its input x `(..., d)`.
            output: Its output g x_hat + b `(..., d)`.

        Returns:
            `(..., d)`
        """
        delta = self.gain * normalise(module, args[0].to(self.gain.dtype), self.unit)
        if self.bias is not None:
            delta = delta + self.bias
        return output + delta.to(output.dtype)

    def fold(self, module: nn.Module) -> dict[str, torch.Tensor] | None:
        """Gain and bias plus their deltas; see `Foldable`."""
        deltas = {"weight": self.gain} | ({} if self.bias is None else {"bias": self.bias})
        values = {name: folded(module.get_parameter(name), delta) for name, delta in deltas.items()}
        found = {name: value for name, value in values.items() if value is not None}
        return found if len(found) == len(values) else None


def normalise(norm: nn.Module, x: torch.Tensor, weight: float) -> torch.Tensor:
    """Apply a norm of any kind to an input, with one weight for all features and no bias.

    Args:
        norm: Left unchanged; its hooks do not run.
        x: `(..., d)`.
        weight: Value used in place of the norm's weight parameter.

    Returns:
        `(..., d)`
    """
    values: dict[str, torch.Tensor | None] = {
        name: torch.full_like(p, weight if name == "weight" else 0.0, dtype=x.dtype)
        for name, p in norm.named_parameters(recurse=False)
    }
    values |= {name: None for name in ("weight", "bias") if getattr(norm, name, 0) is None}
    bare = copy_with(norm, values)
    result: torch.Tensor = type(norm).forward(bare, x)
    return result


@torch.no_grad()
def unit_weight(norm: nn.Module, width: int) -> float:
    """The weight at which a norm's gain is one: 1, or 0 where the gain is 1 + weight."""
    x = torch.arange(1.0, width + 1.0, device=norm.get_parameter("weight").device)
    return 0.0 if normalise(norm, x, 0.0).any() else 1.0


def attach(model: nn.Module, norms: tuple[Norm, ...], with_biases: bool) -> Attachment:
    """Hook the deltas on every norm."""
    named = {f"norm{i}": norm for i, norm in enumerate(norms)}
    units = {name: unit_weight(model.get_submodule(norm.path), norm.width) for name, norm in named.items()}
    deltas = nn.ModuleDict(
        {name: NormDelta(norm, units[name], bias=with_biases and norm.bias) for name, norm in named.items()}
    )
    return Attachment(module=deltas, undo=hook_forwards(model, named, deltas))
