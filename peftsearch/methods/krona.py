"""KronA: a Kronecker product added to a weight (arXiv 2212.10650).

Sec. 3: Y = X W + s X (A kron B), with A in R^(a_out x a_in), B in R^(b_out x b_in), a_out b_out = d_out and
a_in b_in = d_in; W is frozen. By default it acts on the query and value projections, in a fused map on their slices
alone. a_out a_in + b_out b_in parameters per target. A forward pass never forms the product: with the input as a
matrix X of a_in x b_in, (A kron B) x is A X B^T.

The size is an index into the shapes that a target allows, sorted by count: size 1 is the smallest, in a square map 2 d
as in LoRA of rank 1. Where several shapes have the same count, only the one whose product can have the largest rank is
used. Targets of different widths (grouped heads) each have their own shape at an index.

A starts at zero and B as a linear map does (Kaiming uniform with a = sqrt 5), as in HF peft's LoKr, so the output is
unchanged at init. s is 1: the learning rate takes its place. It merges: W = W_0 + s (A kron B).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from peftsearch.backbone.anatomy import Block
from peftsearch.methods.projections import OnTargets

if TYPE_CHECKING:
    from torch import nn

    from peftsearch.methods.layers.attachment import Attachment


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
    """The shapes whose Kronecker product is d_out x d_in, sorted by count; for each count the one of largest rank."""
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


@dataclass(frozen=True, kw_only=True, slots=True)
class KronA(OnTargets):
    """A Kronecker product added to chosen projections of a block."""

    name: str = "krona"
    paper: str = "2212.10650, sec. 3"
    scaling: float = 1.0
    """The s of the paper, which multiplies the product."""
    lr_scale: float = 2.0
    lr_follows_size: bool = False
    """On TREC one rate serves 0.1% and 0.5% of MiniLM-L6."""
    knob: str = "shape"

    def shapes(self, block: Block, size: int) -> dict[str, Shape]:
        """Shapes of the factors at this size, by projection."""
        return {name: factorisations(p.d_out, p.d_in)[size - 1] for name, p in self.projections(block).items()}

    def max_size(self, block: Block) -> int:
        """Number of shapes of the target that has the fewest."""
        return min(len(factorisations(p.d_out, p.d_in)) for p in self.projections(block).values())

    def count(self, block: Block, size: int) -> int:
        """The sum of a_out a_in + b_out b_in over the targets."""
        return sum(shape.n_params for shape in self.shapes(block, size).values())

    def label(self, block: Block, size: int) -> str:
        """The shape of A, one per target where they differ: `A 24x32`."""
        rows_columns = dict.fromkeys(shape.a for shape in self.shapes(block, size).values())
        return "A " + ", ".join(f"{rows}x{columns}" for rows, columns in rows_columns)

    def attach(self, model: nn.Module, block: Block, size: int) -> Attachment:
        """Hook a pair of factors on every target."""
        from peftsearch.methods.layers.krona import attach

        factors = {name: (shape.a, shape.b) for name, shape in self.shapes(block, size).items()}
        return attach(model, self.projections(block), factors, self.scaling)
