"""KronA: a Kronecker product beside a weight (arXiv 2212.10650).

Sec. 3: Y = X W + s X (A kron B), with A in R^(a_out x a_in), B in R^(b_out x b_in), a_out b_out = d_out and
a_in b_in = d_in; W is frozen. By default it acts on the query and value projections, in a fused map on their slices
alone. a_out a_in + b_out b_in parameters a target. The product is never made in a forward pass: with an input as a
matrix X of a_in x b_in, (A kron B) x is A X B^T.

The size is an index into the shapes that a target allows, by their count: size 1 is the smallest, in a square map 2 d
as in LoRA of rank 1. Of the shapes with one count, that whose product can have the largest rank stands for all.
Targets of different widths (grouped heads) have shapes of their own at one index.

A starts at zero and B as a linear map does (Kaiming uniform with a = sqrt 5), as HF peft starts LoKr, so the output is
unchanged at init. s is 1: the learning rate does its work. It merges: W = W_0 + s (A kron B).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import torch
from torch import nn
from torch.nn import functional

from peftsearch.backbone.anatomy import Block, Projection
from peftsearch.methods.method import Attachment
from peftsearch.methods.projections import (
    OnTargets,
    add_delta,
    fold_weight,
    hook_outputs,
    slice_margins,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """The shapes of the two factors of a d_out x d_in matrix."""

    a: tuple[int, int]
    """Rows and columns of A."""
    b: tuple[int, int]
    """Rows and columns of B."""

    @property
    def n_params(self) -> int:
        """Entries of both."""
        return math.prod(self.a) + math.prod(self.b)

    @property
    def rank(self) -> int:
        """The largest rank that the product can have: the product of the factors' ranks."""
        return min(self.a) * min(self.b)


@cache
def factorisations(d_out: int, d_in: int) -> tuple[Shape, ...]:
    """The shapes whose Kronecker product is d_out x d_in, by count; of each count the one of the largest rank."""
    best: dict[int, Shape] = {}
    for rows in _divisors(d_out):
        for columns in _divisors(d_in):
            shape = Shape(a=(rows, columns), b=(d_out // rows, d_in // columns))
            known = best.get(shape.n_params)
            if known is None or shape.rank > known.rank:
                best[shape.n_params] = shape
    return tuple(best[n] for n in sorted(best))


def _divisors(n: int) -> list[int]:
    return [k for k in range(1, n + 1) if n % k == 0]


def multiply(a: torch.Tensor, b: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """(A kron B) x, by way of A X B^T.

    Args:
        a: `(a_out, a_in)`.
        b: `(b_out, b_in)`.
        x: `(..., a_in * b_in)`.

    Returns:
        `(..., a_out * b_out)`
    """
    matrix = x.reshape(*x.shape[:-1], a.shape[1], b.shape[1])
    halfway = functional.linear(matrix, b)  # (..., a_in, b_out)
    product = functional.linear(halfway.transpose(-1, -2), a)  # (..., b_out, a_out)
    return product.transpose(-1, -2).flatten(-2)


class Kronecker(nn.Module):
    """The pair A, B of one projection; its `forward` is the hook on the projection's module."""

    def __init__(self, projection: Projection, shape: Shape, scaling: float) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.zeros(shape.a))
        self.b = nn.Parameter(torch.empty(shape.b))
        self.scaling = scaling
        self.margins = slice_margins(projection.start, projection.d_out, projection.d_module, projection.n_pieces)
        nn.init.kaiming_uniform_(self.b, a=math.sqrt(5))

    def forward(self, module: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        """Add scaling * (A kron B) x (2212.10650 sec. 3) of the input `(..., d_in)` to the output `(..., d_module)`."""
        delta = multiply(self.a, self.b, args[0].to(self.a.dtype))
        return add_delta(output, self.scaling * delta, self.margins)

    def fold(self, module: nn.Module) -> dict[str, torch.Tensor] | None:
        """W_0 + s (A kron B), in the slice of a fused map alone; see `Foldable`."""
        return fold_weight(module, self.scaling * torch.kron(self.a, self.b), self.margins)


@dataclass(frozen=True, kw_only=True, slots=True)
class KronA(OnTargets):
    """A Kronecker product beside chosen projections of a block."""

    name: str = "krona"
    paper: str = "2212.10650, sec. 3"
    scaling: float = 1.0
    """The s of the paper, which multiplies the product."""
    lr_scale: float = 3.0
    """At 60 steps on TREC it scores far higher at this rate than at LoRA's (measured at 1 and 3)."""
    knob: str = "shape"

    def shapes(self, block: Block, size: int) -> dict[str, Shape]:
        """The factors' shapes at this size, by projection."""
        return {name: factorisations(p.d_out, p.d_in)[size - 1] for name, p in self.projections(block).items()}

    def obstacle(self, block: Block) -> str | None:
        """None: every matrix is a product of a 1 x 1 and itself."""
        return None

    def max_size(self, block: Block) -> int:
        """How many shapes the target with the fewest has."""
        return min(len(factorisations(p.d_out, p.d_in)) for p in self.projections(block).values())

    def count(self, block: Block, size: int) -> int:
        """The sum of a_out a_in + b_out b_in over the targets."""
        return sum(shape.n_params for shape in self.shapes(block, size).values())

    def label(self, block: Block, size: int) -> str:
        """The shape of A, of each target where they differ: `A 24x32`."""
        rows_columns = dict.fromkeys(shape.a for shape in self.shapes(block, size).values())
        return "A " + ", ".join(f"{rows}x{columns}" for rows, columns in rows_columns)

    def attach(self, model: nn.Module, block: Block, size: int) -> Attachment:
        """Hook a pair of factors on every target."""
        targets, shapes = self.projections(block), self.shapes(block, size)
        pairs = {name: Kronecker(targets[name], shape, self.scaling) for name, shape in shapes.items()}
        undo = hook_outputs(model, {name: (targets[name].path, pair.forward) for name, pair in pairs.items()})
        return Attachment(module=nn.ModuleDict(pairs), undo=undo)
