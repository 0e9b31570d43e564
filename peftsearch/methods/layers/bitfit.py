"""The layers of BitFit; `peftsearch.methods.bitfit` names the paper."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from peftsearch.methods.layers.attachment import Attachment
from peftsearch.methods.layers.projections import add_delta, folded, hook_outputs, widen
from peftsearch.methods.projections import Margins


class BiasDelta(nn.Module):
    """The delta of one bias; `forward` is the hook on the bias's module."""

    def __init__(self, width: int, margins: Margins | None) -> None:
        super().__init__()
        self.delta = nn.Parameter(torch.zeros(width))
        self.margins = margins

    def forward(self, module: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        """Add delta `(d_slice,)` to the module's output `(..., d_module)`."""
        return add_delta(output, self.delta, self.margins)

    def fold(self, module: nn.Module) -> dict[str, torch.Tensor] | None:
        """The bias plus delta, in the slice of a fused bias alone; see `Foldable`."""
        bias = folded(module.get_parameter("bias"), widen(self.delta, self.margins))
        return None if bias is None else {"bias": bias}


def attach(model: nn.Module, biases: Mapping[str, tuple[str, int, Margins | None]]) -> Attachment:
    """Hook a delta on every bias.

    Args:
        model: The model that the paths start from.
        biases: For each name the path of the bias's module, the bias's width, and the zeros around a slice.
    """
    deltas = nn.ModuleDict({name: BiasDelta(width, margins) for name, (_, width, margins) in biases.items()})
    hooks = {name: (path, deltas[name].forward) for name, (path, _, _) in biases.items()}
    return Attachment(module=deltas, undo=hook_outputs(model, hooks))
