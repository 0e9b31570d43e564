"""FAR, freeze and reconfigure: training the nodes of the feed-forward network that learn most (arXiv 2205.01541).

Sec. 3: after a priming phase the nodes of the feed-forward maps are ranked by how far their weights moved; the share r
that moved most is trained, the others are frozen, and the maps are split accordingly. Here a node is one of the d_ff
inner units: its row in each map into the network with its bias, and its column in the map back. How far a node moves is
taken to first order: as the L1 norm of the sum of its gradients over the priming batches, the distance that one step of
gradient descent would take it; nothing is trained for it. The size is the number of nodes n, n (2 d + 1) parameters (n
(3 d) in a gated network without biases). Deltas start at zero: the output is unchanged. It merges.

Left out: the priming by training, and the norms and biases that the paper trains beside the nodes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from peftsearch.backbone.anatomy import Block, Projection
from peftsearch.methods.method import Attachment
from peftsearch.methods.probing import Choice, ProbedMap
from peftsearch.methods.projections import fold_weight, folded, hook_outputs


class NodesIn(ProbedMap):
    """Rows and biases of the chosen nodes in a map into the network."""

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
        """Zero but for the rows of the chosen nodes, `(d_ff, d)`."""
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
    """Columns of the chosen nodes in the map back."""

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
        """Zero but for the columns of the chosen nodes, `(d, d_ff)`."""
        return self.w.new_zeros(self.shape).index_copy(1, self.__dict__["owner"].nodes, self.w)

    def fold(self, module: nn.Module) -> dict[str, torch.Tensor] | None:
        """The weight with the nodes' deltas; see `Foldable`."""
        return super().fold(module) if self.__dict__["owner"].is_chosen else {}


class Nodes(nn.Module):
    """The trained nodes of one feed-forward network."""

    nodes: torch.Tensor

    def __init__(self, block: Block, n: int) -> None:
        super().__init__()
        self.register_buffer("nodes", torch.full((n,), -1))  # -1: not chosen yet
        self.choice = Choice("far")
        self.inputs = nn.ModuleList([NodesIn(p, self, n) for p in block.ffn.inputs])
        self.output = NodesOut(block.ffn.output, self, n)
        self.moved: list[torch.Tensor] = []
        """Sum of the gradients of each map, while gradients are looked at."""

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
        self.nodes.copy_(distance.topk(len(self.nodes)).indices.sort().values)

    def drop(self) -> None:
        """Let go of gradients and probes."""
        self.moved = []
        for each in self.maps:
            each.probe = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Far:
    """Deltas on the inner nodes of a feed-forward network that learn most."""

    name: str = "far"
    paper: str = "2205.01541, sec. 3"
    places: str = "inner nodes of ffn"
    lr_scale: float = 1.0
    knob: str = "nodes"
    merges: bool = True
    changes: str = "the chosen nodes"
    exact_at_init: bool = True

    def obstacle(self, block: Block) -> str | None:
        """None: every block has a feed-forward network."""
        return None

    def max_size(self, block: Block) -> int:
        """All nodes."""
        return block.ffn.d_ff

    def count(self, block: Block, size: int) -> int:
        """A row and a bias in each map into the network, a column in the map back, for each node."""
        return size * (sum(p.d_in + p.bias for p in block.ffn.inputs) + block.ffn.output.d_out)

    def changed(self, block: Block, size: int) -> int:
        """The nodes that it trains."""
        return self.count(block, size)

    def label(self, block: Block, size: int) -> str:
        """The number of nodes: `n=4`."""
        return f"n={size}"

    def attach(self, model: nn.Module, block: Block, size: int) -> Attachment:
        """Hook deltas on the maps of the network; `prime` chooses the nodes."""
        module = Nodes(block, size)
        paths = [p.path for p in (*block.ffn.inputs, block.ffn.output)]
        hooks = {str(i): (path, each.forward) for i, (path, each) in enumerate(zip(paths, module.maps, strict=True))}
        return Attachment(module=module, undo=hook_outputs(model, hooks))
