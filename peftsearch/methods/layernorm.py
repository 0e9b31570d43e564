"""LayerNorm tuning: training the gains and biases of the norms alone (arXiv 2312.11420; on BERT also 2003.00152).

2312.11420 sec. 3 trains the norms of every block. Here each gain g becomes g + delta_g and each bias b becomes
b + delta_b, with both deltas 0 at init: the same functions and, without weight decay, the same Adam updates as
training g and b themselves, while the backbone stays untouched. The size is the index of a named subset, smallest
first: `gains`, `gains+biases`; blocks whose norms have no biases (RMSNorm) have the first alone. d a gain and d a bias.
The output is unchanged at init. It merges in place.

Norms whose gain is 1 + weight (Gemma) are recognised by what they make of a weight of zero. A norm's bias that BitFit
trains too gets both deltas.

Left out: norms outside the blocks (embeddings, the final one), which belong to no group, and norms of another width
than the hidden one (those of single heads).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from peftsearch.backbone.anatomy import Block, Norm
from peftsearch.methods.method import Attachment
from peftsearch.methods.projections import folded, hook_outputs


class NormDelta(nn.Module):
    """The deltas of one norm; its `forward` is the hook on the norm."""

    def __init__(self, norm: Norm, unit: float, bias: bool) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.zeros(norm.width))
        self.bias = nn.Parameter(torch.zeros(norm.width)) if bias else None
        self.unit = unit
        """The weight with which the norm multiplies by one."""

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
    """What a norm of any kind makes of its input with one weight for all features and no bias.

    Args:
        norm: Left as it is; its hooks do not run.
        x: `(..., d)`.
        weight: Takes the place of its parameter.

    Returns:
        `(..., d)`
    """
    bare: Any = copy.copy(norm)
    bare._parameters = {
        name: None if p is None else torch.full_like(p, weight if name == "weight" else 0.0, dtype=x.dtype)
        for name, p in norm._parameters.items()
    }
    result: torch.Tensor = type(norm).forward(bare, x)
    return result


@torch.no_grad()
def unit_weight(norm: nn.Module, width: int) -> float:
    """The weight with which a norm multiplies by one: 1, or 0 where its gain is 1 + weight."""
    x = torch.arange(1.0, width + 1.0, device=norm.get_parameter("weight").device)
    return 0.0 if normalise(norm, x, 0.0).any() else 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerNorm:
    """Deltas on the gains, or the gains and biases, of a block's norms."""

    name: str = "layernorm"
    paper: str = "2312.11420, sec. 3"
    places: str = "gains and biases of the norms"
    lr_scale: float = 1.0
    knob: str = "subset"
    merges: bool = True
    changes: str = "the norms"
    exact_at_init: bool = True

    def obstacle(self, block: Block) -> str | None:
        """Blocks whose norms have no parameters have nothing to train."""
        return None if block.norms else f"{block.path} has no norms with a gain; use bitfit or lora there"

    def max_size(self, block: Block) -> int:
        """2 where a norm has a bias, else 1."""
        return 2 if any(norm.bias for norm in block.norms) else 1

    def count(self, block: Block, size: int) -> int:
        """The width d of each gain, and at size 2 that of each bias."""
        return sum(norm.width * (2 if size == 2 and norm.bias else 1) for norm in block.norms)

    def changed(self, block: Block, size: int) -> int:
        """The gains and biases that it trains."""
        return self.count(block, size)

    def label(self, block: Block, size: int) -> str:
        """The name of the subset."""
        return "gains+biases" if size == 2 else "gains"

    def attach(self, model: nn.Module, block: Block, size: int) -> Attachment:
        """Hook the deltas on every norm of the block."""
        deltas = {}
        for i, norm in enumerate(block.norms):
            unit = unit_weight(model.get_submodule(norm.path), norm.width)
            deltas[f"norm{i}"] = NormDelta(norm, unit, bias=size == 2 and norm.bias)
        norms = dict(zip(deltas, block.norms, strict=True))
        undo = hook_outputs(model, {name: (norms[name].path, delta.forward) for name, delta in deltas.items()})
        return Attachment(module=nn.ModuleDict(deltas), undo=undo)
