"""IA3: infused adapter by inhibiting and amplifying inner activations (arXiv 2205.05638).

Sec. 3.3: softmax(Q (l_k * K)^T / sqrt(d_k)) (l_v * V) and (l_ff * f(W_1 x)) W_2, with learned vectors l that start at
one. They act in every self-attention, in the cross-attention of a decoder, and in the feed-forward network, in a gated
one on the product of gate and up: d_k + d_v + d_ff parameters a block, d_k + d_v more with cross-attention. In a fused
map the keys' and values' slices alone are scaled. There is no choice of size. Each l is stored as 1 + delta with
delta = 0, so the output is unchanged at init. It merges: l_k and l_v into the rows and biases of the key and value
maps, l_ff into the columns of the output map.

As in HF peft, the projection's result is scaled: before rotary positions, and before the norm that some families
(Qwen3) put on their keys.

Left out: the paper's pretraining of the vectors and its additional losses.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from peftsearch.backbone.anatomy import Block, Projection
from peftsearch.methods.method import Attachment
from peftsearch.methods.projections import folded, hook_outputs, name_projections, slice_margins, widen


class OutputScale(nn.Module):
    """The l of keys or values; its `forward` is the hook on the projection's module."""

    def __init__(self, projection: Projection) -> None:
        super().__init__()
        self.delta = nn.Parameter(torch.zeros(projection.d_out))
        self.margins = slice_margins(projection.start, projection.d_out, projection.d_module, projection.n_pieces)

    def forward(self, module: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        """Multiply the module's output `(..., d_module)` by 1 + delta `(d_slice,)`, in the slice alone."""
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
    """The l of the feed-forward network's inner activation; two hooks on the output map, before it and after it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.delta = nn.Parameter(torch.zeros(width))

    def scale(self, module: nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...] | None:
        """Multiply the map's input `(..., d_ff)` by 1 + delta, unless the weight has taken it in."""
        if all(getattr(hook, "__self__", None) is not self for hook in module._forward_hooks.values()):
            return None
        return ((args[0] * (1 + self.delta)).to(args[0].dtype), *args[1:])

    def forward(self, module: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        """Pass the output on: this hook stands for the scaling where hooks are folded, and goes when it is."""
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


@dataclass(frozen=True, kw_only=True, slots=True)
class IA3:
    """Learned scales of a block's keys, values and inner activation."""

    name: str = "ia3"
    paper: str = "2205.05638, sec. 3.3"
    places: str = "keys, values and the input of the ffn's output map"
    lr_scale: float = 3.0
    """Few scales have to move far: at 60 steps on TREC it scores at this rate as LoRA does at its own."""
    knob: str = "subset"
    merges: bool = True
    changes: str = "rows and biases of key and value, columns of ffn_out (each by one factor)"
    exact_at_init: bool = True

    def scaled(self, block: Block) -> dict[str, Projection]:
        """The key and value projections of all attentions of the block, by name."""
        wanted = ("key", "value", "cross_key", "cross_value")
        return {name: p for name, p in name_projections(block).items() if name in wanted}

    def obstacle(self, block: Block) -> str | None:
        """None: every block has keys, values and a feed-forward network."""
        return None

    def max_size(self, block: Block) -> int:
        """There is one size."""
        return 1

    def count(self, block: Block, size: int) -> int:
        """d_k + d_v of each attention, and d_ff."""
        return sum(p.d_out for p in self.scaled(block).values()) + block.ffn.d_ff

    def changed(self, block: Block, size: int) -> int:
        """The vectors, by which the result can be stored: as many as are trained (survey 2303.15647)."""
        return self.count(block, size)

    def label(self, block: Block, size: int) -> str:
        """What is scaled."""
        return "k+v+ffn"

    def attach(self, model: nn.Module, block: Block, size: int) -> Attachment:
        """Hook the scales on keys, values and the feed-forward network's output map."""
        targets = self.scaled(block)
        scales: dict[str, nn.Module] = {name: OutputScale(p) for name, p in targets.items()}
        ffn = InputScale(block.ffn.d_ff)
        hooks = {name: (targets[name].path, scale.forward) for name, scale in scales.items()}
        undo = hook_outputs(model, hooks | {"ffn": (block.ffn.output.path, ffn.forward)})
        handle = model.get_submodule(block.ffn.output.path).register_forward_pre_hook(ffn.scale)
        return Attachment(module=nn.ModuleDict(scales | {"ffn": ffn}), undo=[*undo, handle.remove])
