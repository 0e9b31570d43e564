"""BitFit: training the biases alone (arXiv 2106.10199).

Sec. 3 trains every bias of the backbone, or only the query's and the feed-forward's first (b_q and b_m2). Here each
bias b becomes b + delta with delta = 0 at init: the same functions and, without weight decay, the same Adam updates as
training b itself, while the backbone stays untouched and the query's slice of a fused bias can be trained alone.
The size is the index of a named subset, smallest first: `query`, `query+ffn_in`, `all` (the biases of all projections
and norms of the block); subsets that a block does not have, or that add nothing to the one before, are skipped. The
count is the sum of the biases' widths. The output is unchanged at init. It merges in place.

Left out: biases outside the blocks (embeddings), which belong to no group, and biases that are not part of a linear map
or norm (DeBERTa-v1's query and value biases).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from peftsearch.backbone.anatomy import Block
from peftsearch.methods.projections import Margins, name_projections, slice_margins

if TYPE_CHECKING:
    from torch import nn

    from peftsearch.methods.layers.attachment import Attachment


@dataclass(frozen=True, kw_only=True, slots=True)
class Bias:
    """One bias, or a slice of a fused one."""

    name: str
    """Name of its parameter: `query`, `ffn_in0`, `norm1`."""
    path: str
    """Dotted path of its module."""
    width: int
    start: int = 0
    """First index of the slice in each piece."""
    d_module: int = 0
    """Length of the whole bias; 0 means `width`."""
    n_pieces: int = 1
    """Number of pieces that the slice consists of; see `Projection`."""

    @property
    def margins(self) -> Margins | None:
        """The zeros around the slice in the whole bias; None where the slice is the whole bias."""
        return slice_margins(self.start, self.width, self.d_module, self.n_pieces)


def list_biases(block: Block) -> list[Bias]:
    """All biases of a block: the projections' in the order in which they act, then the norms'."""
    of_maps = [
        Bias(name=name, path=p.path, width=p.d_out, start=p.start, d_module=p.d_module, n_pieces=p.n_pieces)
        for name, p in name_projections(block).items()
        if p.bias
    ]
    return of_maps + [Bias(name=f"norm{i}", path=n.path, width=n.width) for i, n in enumerate(block.norms) if n.bias]


def subsets(block: Block) -> list[tuple[str, list[Bias]]]:
    """The named subsets of a block's biases, each with more parameters than the one before.

    Returns:
        Name and biases of each subset; empty for a block without biases.
    """
    every = list_biases(block)
    query = [bias for bias in every if bias.name in ("query", "cross_query")]
    query_ffn = query + [bias for bias in every if bias.name.startswith("ffn_in")]
    found: list[tuple[str, list[Bias]]] = []
    for name, biases in (("query", query), ("query+ffn_in", query_ffn), ("all", every)):
        if len(biases) > (len(found[-1][1]) if found else 0):
            found.append((name, biases))
    return found


@dataclass(frozen=True, kw_only=True, slots=True)
class BitFit:
    """Deltas on a named subset of a block's biases."""

    name: str = "bitfit"
    paper: str = "2106.10199, sec. 3"
    places: str = "biases of the projections and norms"
    lr_scale: float = 0.75
    lr_follows_size: bool = True
    knob: str = "subset"
    merges: bool = True
    changes: str = "the biases"
    exact_at_init: bool = True

    def obstacle(self, block: Block) -> str | None:
        """Say that a block has no biases to train (Llama); None where it has."""
        return None if list_biases(block) else f"{block.path} has no biases; use lora or adapter there"

    def max_size(self, block: Block) -> int:
        """Number of subsets that the block has."""
        return len(subsets(block))

    def count(self, block: Block, size: int) -> int:
        """The sum of the widths of the subset's biases."""
        return sum(bias.width for bias in subsets(block)[size - 1][1])

    def changed(self, block: Block, size: int) -> int:
        """The trained biases."""
        return self.count(block, size)

    def label(self, block: Block, size: int) -> str:
        """The name of the subset."""
        return subsets(block)[size - 1][0]

    def attach(self, model: nn.Module, block: Block, size: int) -> Attachment:
        """Hook a delta on every bias of the subset."""
        from peftsearch.methods.layers.bitfit import attach

        biases = subsets(block)[size - 1][1]
        return attach(model, {bias.name: (bias.path, bias.width, bias.margins) for bias in biases})
