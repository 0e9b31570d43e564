"""The layers of FAR; `peftsearch.methods.far` names the paper."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from peftsearch.backbone.anatomy import FeedForward, Projection
from peftsearch.methods.layers.attachment import Attachment
from peftsearch.methods.layers.probing import Choice, ProbedMap, highest
from peftsearch.methods.layers.projections import fold_weight, folded, hook_outputs


class NodesIn(ProbedMap):
    """Rows and biases of the chosen nodes, in a map into the network."""

    def __init__(self, projection: Projection, owner: Nodes, n: int) -> None:
        super().__init__(projection)
        self.w = nn.Parameter(torch.zeros(n, projection.d_in))
        self.b = nn.Parameter(torch.zeros(n)) if projection.bias else None
        self.start = projection.start
        self.__dict__["owner"] = owner

    def forward(self, module: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        """Add the chosen nodes' deltas: input `(..., d)`, output `(..., d_module)`."""
        owner: Nodes = self.__dict__["owner"]
        owner.choice.require(owner.nodes, self, self.probe)
        if self.probe is not None:
            return super().forward(module, args, output)
        if not owner.is_chosen:
            return output
        own = functional.linear(args[0].to(self.w.dtype), self.w, self.b)  # (..., n)
        return output.index_add(-1, owner.nodes + self.start, own.to(output.dtype))

    def delta(self) -> torch.Tensor:
        """Delta `(d_ff, d)`, nonzero only in the rows of the chosen nodes."""
        return self.w.new_zeros(self.shape).index_copy(0, self.__dict__["owner"].nodes, self.w)

    def fold(self, module: nn.Module) -> dict[str, torch.Tensor] | None:
        """Weight and bias with the nodes' deltas; see `Foldable`."""
        owner: Nodes = self.__dict__["owner"]
        if not owner.is_chosen:
            return {}
        weight = fold_weight(module, self.delta(), self.margins)
        if weight is None or self.b is None:
            return weight
        own = module.get_parameter("bias")
        bias = folded(own, self.b.new_zeros(own.shape).index_copy(0, owner.nodes + self.start, self.b))
        return None if bias is None else {**weight, "bias": bias}


class NodesOut(ProbedMap):
    """Columns of the chosen nodes, in the map back."""

    def __init__(self, projection: Projection, owner: Nodes, n: int) -> None:
        super().__init__(projection)
        self.w = nn.Parameter(torch.zeros(projection.d_out, n))
        self.__dict__["owner"] = owner

    def forward(self, module: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        """Add the chosen nodes' deltas: input `(..., d_ff)`, output `(..., d)`."""
        owner: Nodes = self.__dict__["owner"]
        if self.probe is not None:
            return super().forward(module, args, output)
        if not owner.is_chosen:
            return output
        inner = args[0].index_select(-1, owner.nodes).to(self.w.dtype)  # (..., n)
        return output + functional.linear(inner, self.w).to(output.dtype)

    def delta(self) -> torch.Tensor:
        """Delta `(d, d_ff)`, nonzero only in the columns of the chosen nodes."""
        return self.w.new_zeros(self.shape).index_copy(1, self.__dict__["owner"].nodes, self.w)

    def fold(self, module: nn.Module) -> dict[str, torch.Tensor] | None:
        """The weight with the nodes' deltas; see `Foldable`."""
        return super().fold(module) if self.__dict__["owner"].is_chosen else {}


class Nodes(nn.Module):
    """The trained nodes of one feed-forward network."""

    nodes: torch.Tensor

    def __init__(self, ffn: FeedForward, n: int) -> None:
        super().__init__()
        self.register_buffer("nodes", torch.full((n,), -1))  # -1: not chosen yet
        self.choice = Choice("far")
        self.inputs = nn.ModuleList([NodesIn(p, self, n) for p in ffn.inputs])
        self.output = NodesOut(ffn.output, self, n)
        self.moved: list[torch.Tensor] = []
        """Sum of the gradients of each map, during priming only."""

    @property
    def is_chosen(self) -> bool:
        """Whether the nodes are chosen."""
        return self.choice.is_made(self.nodes)

    @property
    def maps(self) -> list[Any]:
        """The hooks of all maps, the map back last."""
        return [*self.inputs, self.output]

    def watch(self) -> None:
        """Let every node take gradients."""
        for each in self.maps:
            each.watch(self.output.w)
        self.moved = [torch.zeros_like(each.probe) for each in self.maps]

    def record(self) -> None:
        """Add the gradients of one batch."""
        self.moved = [total + each.take() for total, each in zip(self.moved, self.maps, strict=True)]

    def choose(self) -> None:
        """Keep the nodes whose rows and columns moved most, in order of position."""
        *rows, column = (total.abs() for total in self.moved)
        distance = column.sum(0) + sum(row.sum(1) for row in rows)  # (d_ff,)
        self.nodes.copy_(highest(distance, len(self.nodes)))

    def drop(self) -> None:
        """Free the gradients and the probes."""
        self.moved = []
        for each in self.maps:
            each.probe = None


def attach(model: nn.Module, ffn: FeedForward, n: int) -> Attachment:
    """Hook deltas on the maps of a feed-forward network; `prime` chooses the n nodes."""
    module = Nodes(ffn, n)
    paths = [p.path for p in (*ffn.inputs, ffn.output)]
    hooks = {str(i): (path, each.forward) for i, (path, each) in enumerate(zip(paths, module.maps, strict=True))}
    return Attachment(module=module, undo=hook_outputs(model, hooks))
