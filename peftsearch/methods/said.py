"""Intrinsic SAID: training in a random low-dimensional subspace of the weights (arXiv 2012.13255).

Eq. 3: theta_i = theta_0,i + lambda_i P(theta_d)_i with a scale lambda for each layer i and a fixed random projection P,
the Fastfood transform (eq. 4: P = H G Pi H B; Hadamard, normal, permutation, Hadamard, signs). Here each block has its
own theta of s values and its lambda, so that sizes can differ by block; it acts on the query and value weights (the
paper on all). The projection is drawn from the names of the maps and never stored: a saved theta means the same
everywhere. theta starts at zero, lambda at one: the output is unchanged at init. s + 1 parameters a block, in units of
a sixteenth of the hidden size. It merges; then whole matrices have changed.

Left out: one theta for all blocks.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from peftsearch.backbone.anatomy import Block, Projection
from peftsearch.methods.method import Attachment
from peftsearch.methods.projections import add_delta, fold_weight, hook_outputs, slice_margins, target_projections

ACTS_ON = ("query", "value")
UNITS = 16
"""Sizes that the hidden size is divided into."""


def hadamard(x: torch.Tensor) -> torch.Tensor:
    """The Walsh-Hadamard transform of a vector `(n,)`, n a power of two, not normalised: H x with entries of +-1."""
    n = x.numel()
    half = 1
    while half < n:
        pairs = x.view(-1, 2, half)
        x = torch.stack((pairs[:, 0] + pairs[:, 1], pairs[:, 0] - pairs[:, 1]), dim=1)
        half *= 2
    return x.reshape(n)


class Fastfood(nn.Module):
    """The projection of one map: from theta `(s,)` to a delta `(d_out, d_in)`; its `forward` is the hook on the map."""

    def __init__(self, projection: Projection, owner: Subspace, name: str) -> None:
        super().__init__()
        self.shape = (projection.d_out, projection.d_in)
        self.n = projection.d_out * projection.d_in
        self.padded: int = 2 ** math.ceil(math.log2(self.n))
        self.margins = slice_margins(projection.start, projection.d_out, projection.d_module, projection.n_pieces)
        generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
        signs = torch.randint(0, 2, (self.padded,), generator=generator) * 2 - 1
        normals = torch.randn(self.padded, generator=generator)
        self.register_buffer("signs", signs.float(), persistent=False)
        self.register_buffer("order", torch.randperm(self.padded, generator=generator), persistent=False)
        self.register_buffer("normals", normals, persistent=False)
        # The divisor of the authors' code: then |P x| is |x| on average, whatever the number of weights.
        self.scale = 1 / (math.sqrt(self.padded * float(normals.square().sum())) * math.sqrt(self.n / self.padded))
        self.__dict__["owner"] = owner  # past nn.Module's bookkeeping: the owner holds this module already

    def delta(self) -> torch.Tensor:
        """Lambda P(theta), `(d_out, d_in)` (2012.13255, eq. 3 and 4)."""
        owner: Subspace = self.__dict__["owner"]
        x = functional.pad(owner.theta, (0, self.padded - len(owner.theta)))
        x = hadamard(self.get_buffer("signs") * x)[self.get_buffer("order")]
        x = hadamard(self.get_buffer("normals") * x)
        return owner.scale * (self.scale * x[: self.n]).view(self.shape)

    def forward(self, module: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        """Add the delta's product with the input `(..., d_in)` to the output `(..., d_module)`."""
        delta = self.delta()
        return add_delta(output, functional.linear(args[0].to(delta.dtype), delta), self.margins)

    def fold(self, module: nn.Module) -> dict[str, torch.Tensor] | None:
        """The weight plus the delta; see `Foldable`."""
        return fold_weight(module, self.delta(), self.margins)


class Subspace(nn.Module):
    """theta and lambda of a block, and the projections of its maps."""

    def __init__(self, projections: dict[str, Projection], size: int) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.zeros(size))
        self.scale = nn.Parameter(torch.ones(()))
        self.maps = nn.ModuleDict({name: Fastfood(p, self, f"{p.path}.{name}") for name, p in projections.items()})


@dataclass(frozen=True, kw_only=True, slots=True)
class Said:
    """A random subspace of the query and value weights of a block."""

    name: str = "said"
    paper: str = "2012.13255, eq. 3"
    places: str = "query and value projections"
    lr_scale: float = 0.3
    knob: str = "dimensions"
    merges: bool = True
    changes: str = "whole matrices"
    exact_at_init: bool = True

    def projections(self, block: Block) -> dict[str, Projection]:
        """The projections it acts on in this block, by name."""
        return target_projections(block, ACTS_ON)

    def obstacle(self, block: Block) -> str | None:
        """None: every block has a query and a value."""
        return None

    def unit(self, block: Block) -> int:
        """Dimensions of one size."""
        return max(1, block.hidden_size // UNITS)

    def max_size(self, block: Block) -> int:
        """As many dimensions as the smaller map has weights: more are no subspace."""
        return min(p.d_in * p.d_out for p in self.projections(block).values()) // self.unit(block)

    def count(self, block: Block, size: int) -> int:
        """The dimensions and one scale."""
        return size * self.unit(block) + 1

    def changed(self, block: Block, size: int) -> int:
        """All of the matrices that it acts on: the projection is dense."""
        return sum(p.d_in * p.d_out for p in self.projections(block).values())

    def label(self, block: Block, size: int) -> str:
        """The number of dimensions: `d=96`."""
        return f"d={size * self.unit(block)}"

    def attach(self, model: nn.Module, block: Block, size: int) -> Attachment:
        """Hook the projection of `theta` on every target."""
        targets = self.projections(block)
        module = Subspace(targets, size * self.unit(block))
        hooks = {name: (targets[name].path, each.forward) for name, each in module.maps.items()}
        return Attachment(module=module, undo=hook_outputs(model, hooks))
