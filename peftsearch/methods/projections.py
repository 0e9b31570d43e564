"""Linear maps of a block as methods use them: stable names, selectable targets, slices of fused maps."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from peftsearch.backbone.anatomy import Block, Projection
from peftsearch.errors import MethodError, unknown_name


def name_projections(block: Block) -> dict[str, Projection]:
    """Name a block's linear maps as in parameter names: `query`, `cross_query`, `ffn_in0`, `ffn_out`, ..."""
    named: dict[str, Projection] = {}
    for prefix, attention in zip(("", "cross_"), block.attentions, strict=False):
        for part in ("query", "key", "value", "output"):
            named[prefix + part] = getattr(attention, part)
    named |= {f"ffn_in{i}": projection for i, projection in enumerate(block.ffn.inputs)}
    return named | {"ffn_out": block.ffn.output}


TARGETS = ("query", "key", "value", "output", "ffn_in", "ffn_out")
"""Names of the maps that a method can be told to act on."""
TARGET_SETS = {"attention": TARGETS[:4], "ffn": TARGETS[4:], "all": TARGETS}
"""Sets of maps with a name of their own."""


def check_targets(method: str, targets: Iterable[str]) -> None:
    """Check the names of the maps that a method is to act on.

    Raises:
        MethodError: A name is not in `TARGETS`; the message names the nearest.
    """
    for target in targets:
        if target not in TARGETS:
            raise MethodError(f"{method}: {unknown_name('target', target, TARGETS)}")


def parse_targets(method: str, text: str) -> tuple[str, ...]:
    """Parse the maps in the name of a variant: `ffn`, or `query,ffn_out`; returns them in the order of `TARGETS`.

    Raises:
        MethodError: A name is unknown or given twice.
    """
    if text in TARGET_SETS:
        return TARGET_SETS[text]
    names = text.split(",")
    for name in names:
        if name not in TARGETS:
            raise MethodError(f"{method}: {unknown_name('target', name, (*TARGETS, *TARGET_SETS))}")
        if names.count(name) > 1:
            raise MethodError(f"{method}: target {name!r} is named twice")
    return tuple(name for name in TARGETS if name in names)


def name_targets(targets: Collection[str]) -> str:
    """The inverse of `parse_targets`: the name of a set, or the maps separated by commas."""
    ordered = tuple(name for name in TARGETS if name in targets)
    return next((name for name, maps in TARGET_SETS.items() if maps == ordered), ",".join(ordered))


def target_projections(block: Block, targets: Collection[str]) -> dict[str, Projection]:
    """The maps of a block that `targets` (names out of `TARGETS`) select, cross-attention included, by name."""
    return {
        name: p
        for name, p in name_projections(block).items()
        if name.removeprefix("cross_").rstrip("0123456789") in targets
    }


def count_weights(projections: Iterable[Projection]) -> int:
    """Total number of weights of linear maps, excluding biases."""
    return sum(p.d_in * p.d_out for p in projections)


def lay_out(projections: Mapping[str, Projection]) -> dict[str, int]:
    """Position of each map's first weight when all maps are laid end to end, by name."""
    starts: dict[str, int] = {}
    n = 0
    for name, projection in projections.items():
        starts[name] = n
        n += projection.d_in * projection.d_out
    return starts


@dataclass(frozen=True, kw_only=True, slots=True)
class OnTargets:
    """A method that adds a dense product to the weights of chosen projections of a block."""

    name: str
    targets: tuple[str, ...] = ("query", "value")
    """Maps to act on, out of `TARGETS`; `ffn_in` is both maps of a gated feed-forward network."""
    merges: bool = True
    changes: str = "whole matrices"
    exact_at_init: bool = True

    def __post_init__(self) -> None:
        check_targets(self.name, self.targets)

    @property
    def places(self) -> str:
        """The projections, in words."""
        return " and ".join(self.targets) + " projections"

    def projections(self, block: Block) -> dict[str, Projection]:
        """The projections to act on in this block, by name."""
        return target_projections(block, self.targets)

    def obstacle(self, block: Block) -> str | None:
        """None: every block has linear maps."""
        return None

    def changed(self, block: Block, size: int) -> int:
        """All weights of the targets."""
        return count_weights(self.projections(block).values())


class Margins(NamedTuple):
    """Numbers of zeros around a slice of a fused map's output, in each piece of the slice."""

    front: int
    behind: int
    n_pieces: int
    """Number of pieces that the slice consists of; 1 for a contiguous slice."""


def slice_margins(start: int, width: int, d_module: int, n_pieces: int) -> Margins | None:
    """The zeros in front of and behind a slice of a fused map's output; None where the slice is the whole.

    Args:
        start: First output of the slice in each piece.
        width: Outputs in the slice.
        d_module: Outputs of the module; 0 means `width`.
        n_pieces: Number of equal pieces of the module's output, each of which holds a part of the slice.
    """
    behind = ((d_module or width) - width) // n_pieces - start
    return Margins(start, behind, n_pieces) if start or behind else None


def margins_of(projection: Projection) -> Margins | None:
    """The zeros around a projection's slice of its module's output; None where the slice is the whole output."""
    return slice_margins(projection.start, projection.d_out, projection.d_module, projection.n_pieces)
