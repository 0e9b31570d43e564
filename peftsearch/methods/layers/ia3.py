"""The layers of IA3; `peftsearch.methods.ia3` names the paper."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from peftsearch.backbone.anatomy import FeedForward, Projection
from peftsearch.methods.layers.attachment import Attachment
from peftsearch.methods.layers.projections import folded, hook_forwards, widen
from peftsearch.methods.projections import margins_of


class OutputScale(nn.Module):
    """The scale l of keys or values; `forward` is the hook on the projection's module."""

    def __init__(self, projection: Projection) -> None:
        super().__init__()
        self.delta = nn.Parameter(torch.zeros(projection.d_out))
        self.margins = margins_of(projection)

    def forward(self, module: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        """Multiply the slice of the module's output `(..., d_module)` by 1 + delta `(d_slice,)`."""
        return (output * (1 + self._padded())).to(output.dtype)

    def fold(self, module: nn.Module) -> dict[str, torch.Tensor] | None:
        """The rows of the weight and the bias, scaled; see `Foldable`."""
        delta = self._padded()
        # transformers' Conv1D keeps its weight as (d_in, d_module).
        rows = rescaled(module.get_parameter("weight"), delta[:, None] if isinstance(module, nn.Linear) else delta)
        if rows is None or getattr(module, "bias", None) is None:
            return None if rows is None else {"weight": rows}
        bias = rescaled(module.get_parameter("bias"), delta)
        return None if bias is None else {"weight": rows, "bias": bias}

    def _padded(self) -> torch.Tensor:
        return widen(self.delta, self.margins)


class InputScale(nn.Module):
    """The scale l of the feed-forward network's inner activation, with hooks before and after the output map."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.delta = nn.Parameter(torch.zeros(width))
        self.is_folded = False
        """Whether the scaling is folded into the map's weight; see `FoldAware`."""

    def scale(self, module: nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...] | None:
        """Multiply the map's input `(..., d_ff)` by 1 + delta, unless the weight contains it already."""
        if self.is_folded:
            return None
        return ((args[0] * (1 + self.delta)).to(args[0].dtype), *args[1:])

    def forward(self, module: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        """Return the output unchanged: this hook only represents the scaling where hooks are folded and removed."""
        return output

    def fold(self, module: nn.Module) -> dict[str, torch.Tensor] | None:
        """The columns of the weight, scaled; see `Foldable`."""
        delta = self.delta if isinstance(module, nn.Linear) else self.delta[:, None]
        weight = rescaled(module.get_parameter("weight"), delta)
        return None if weight is None else {"weight": weight}


def rescaled(parameter: torch.Tensor, delta: torch.Tensor) -> torch.Tensor | None:
    """A parameter times 1 + delta, which broadcasts to it, in the parameter's dtype; None where it is packed."""
    if not parameter.is_floating_point():
        return None
    return folded(parameter, parameter * delta)


def attach(model: nn.Module, targets: Mapping[str, Projection], ffn: FeedForward | None) -> Attachment:
    """Hook the scales on the outputs of maps, and on the input of a feed-forward network's output map.

    Args:
        model: The model.
        targets: The maps whose outputs are scaled, by name.
        ffn: The feed-forward network whose inner activation is scaled; None leaves it out.
    """
    module = nn.ModuleDict({name: OutputScale(p) for name, p in targets.items()})
    if ffn is None:
        return Attachment(module=module, undo=hook_forwards(model, targets, module))
    inner = InputScale(ffn.d_ff)
    module["ffn"] = inner
    undo = hook_forwards(model, {**targets, "ffn": ffn.output}, module)
    handle = model.get_submodule(ffn.output.path).register_forward_pre_hook(inner.scale)
    return Attachment(module=module, undo=[*undo, handle.remove])
