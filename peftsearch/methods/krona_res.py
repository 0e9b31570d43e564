"""KronA_res: a Kronecker product and a scaled residual beside the feed-forward network (arXiv 2212.10650).

Sec. 3, KronA^B_res: FFN(X) + s X (A kron B) + s_res X, with A in R^(a_out x a_in), B in R^(b_out x b_in),
a_out b_out = a_in b_in = d, and a learned number s_res. a_out a_in + b_out b_in + 1 parameters. The size is an index
into the shapes of the factors by their count, as in `krona`. A and s_res start at zero and B as a linear map does
(Kaiming uniform with a = sqrt 5): the output is unchanged at init, which the paper's s_res = 1 would not leave it.
s is 1, as in `krona`. It does not merge: past the network's non-linearity there is no weight to take it in.

What it sees and where it adds is as in the parallel adapter: the input of the network's first map, and the output
projection's result. Left out: biases.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from peftsearch.backbone.anatomy import Block
from peftsearch.methods.krona import Shape, factorisations, multiply
from peftsearch.methods.method import Attachment
from peftsearch.methods.projections import Tap, add_delta, hook_outputs


class KroneckerBeside(nn.Module):
    """A, B and s_res around one feed-forward network; two hooks, on its first map and on its last."""

    def __init__(self, shape: Shape, scaling: float) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.zeros(shape.a))
        self.b = nn.Parameter(torch.empty(shape.b))
        self.residual = nn.Parameter(torch.zeros(1))
        self.scaling = scaling
        self.tap = Tap()
        nn.init.kaiming_uniform_(self.b, a=math.sqrt(5))

    def forward(self, module: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        """Add s (A kron B) x + s_res x to the network's output (2212.10650 sec. 3).

        Args:
            module: The output projection.
            args: Its input; not used.
            output: Its output `(..., d)`.

        Returns:
            `(..., d)`
        """
        x = self.tap.take().to(self.a.dtype)
        return add_delta(output, self.scaling * multiply(self.a, self.b, x) + self.residual * x, None)


@dataclass(frozen=True, kw_only=True, slots=True)
class KronARes:
    """A Kronecker product and a scaled residual from the feed-forward network's input to its output."""

    name: str = "krona_res"
    paper: str = "2212.10650, sec. 3"
    places: str = "beside ffn"
    scaling: float = 1.0
    """The s of the paper, which multiplies the product."""
    lr_scale: float = 3.0
    """At 60 steps on TREC it scores far higher at this rate than at LoRA's (measured at 1 and 3)."""
    knob: str = "shape"
    merges: bool = False
    changes: str = "none (added)"
    exact_at_init: bool = True

    def shape(self, block: Block, size: int) -> Shape:
        """The factors' shapes at this size."""
        return factorisations(block.hidden_size, block.hidden_size)[size - 1]

    def obstacle(self, block: Block) -> str | None:
        """None: every block has a feed-forward network."""
        return None

    def max_size(self, block: Block) -> int:
        """How many shapes there are."""
        return len(factorisations(block.hidden_size, block.hidden_size))

    def count(self, block: Block, size: int) -> int:
        """The entries of A and B, and s_res."""
        return self.shape(block, size).n_params + 1

    def changed(self, block: Block, size: int) -> int:
        """What it adds; the backbone stays as it is."""
        return self.count(block, size)

    def label(self, block: Block, size: int) -> str:
        """The shape of A: `A 24x32`."""
        rows, columns = self.shape(block, size).a
        return f"A {rows}x{columns}"

    def attach(self, model: nn.Module, block: Block, size: int) -> Attachment:
        """Hook the factors on the network's first and last map."""
        module = KroneckerBeside(self.shape(block, size), self.scaling)
        hooks = {"in": (block.ffn.inputs[0].path, module.tap.see), "out": (block.ffn.output.path, module.forward)}
        return Attachment(module=module, undo=[*hook_outputs(model, hooks), module.tap.forget])
