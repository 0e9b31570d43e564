"""KronA_res: a Kronecker product and a scaled residual parallel to the feed-forward network (arXiv 2212.10650).

Sec. 3, KronA^B_res: FFN(X) + s X (A kron B) + s_res X, with A in R^(a_out x a_in), B in R^(b_out x b_in),
a_out b_out = a_in b_in = d, and a learned number s_res. a_out a_in + b_out b_in + 1 parameters. The size is an index
into the shapes of the factors by their count, as in `krona`. A and s_res start at zero and B as a linear map does
(Kaiming uniform with a = sqrt 5): the output is unchanged at init, unlike with the paper's s_res = 1. s is 1, as in
`krona`. It does not merge: behind the network's non-linearity there is no weight to fold it into.

Like the parallel adapter it reads the input of the network's first map and adds to the output projection's result.

Left out: biases.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from peftsearch.backbone.anatomy import Block
from peftsearch.methods.added import Added
from peftsearch.methods.krona import Shape, factorisations

if TYPE_CHECKING:
    from torch import nn

    from peftsearch.methods.layers.attachment import Attachment


@dataclass(frozen=True, kw_only=True, slots=True)
class KronARes(Added):
    """A Kronecker product and a scaled residual from the feed-forward network's input to its output."""

    name: str = "krona_res"
    paper: str = "2212.10650, sec. 3"
    places: str = "beside ffn"
    scaling: float = 1.0
    """The s of the paper, which multiplies the product."""
    lr_scale: float = 6.0
    lr_follows_size: bool = False
    knob: str = "shape"

    def shape(self, block: Block, size: int) -> Shape:
        """Shapes of the factors at this size."""
        return factorisations(block.hidden_size, block.hidden_size)[size - 1]

    def max_size(self, block: Block) -> int:
        """Number of shapes."""
        return len(factorisations(block.hidden_size, block.hidden_size))

    def count(self, block: Block, size: int) -> int:
        """The entries of A and B, and s_res."""
        return self.shape(block, size).n_params + 1

    def label(self, block: Block, size: int) -> str:
        """The shape of A: `A 24x32`."""
        rows, columns = self.shape(block, size).a
        return f"A {rows}x{columns}"

    def attach(self, model: nn.Module, block: Block, size: int) -> Attachment:
        """Hook the factors on the network's first and last map."""
        from peftsearch.methods.layers.krona_res import attach

        shape = self.shape(block, size)
        return attach(model, block.ffn, (shape.a, shape.b), self.scaling)
