"""Trained and changed parameters of a method on all blocks, as shares of a backbone, from its anatomy alone."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass

from peftsearch.backbone.anatomy import Backbone, Block
from peftsearch.design.architecture import Architecture, Placement
from peftsearch.design.baselines import uniform
from peftsearch.design.budget import Budget
from peftsearch.design.fitting import fit
from peftsearch.errors import BudgetError, MethodError
from peftsearch.methods import get_method
from peftsearch.methods.abilities import Sharing, count_placed, is_placed, sharing_key, whole_matrices
from peftsearch.methods.method import Method


@dataclass(frozen=True, kw_only=True, slots=True)
class Shares:
    """A method on all blocks of a backbone, at one budget."""

    label: str
    """The size of the first placement: `r=4`."""
    trained: float
    """Trainable parameters as a share of the backbone's; 0.001 is 0.1%."""
    changed: float
    """Parameters in which the result differs from the backbone, as a share of the backbone's."""
    smallest: float
    """Trainable share at the smallest size on all blocks."""
    largest: float
    """Trainable share at the largest sizes that make sense."""
    fits: bool
    """Whether the method fits the budget; if not, label, trained and changed are those of the smallest size."""


def shares(name: str, backbone: Backbone, budget: Budget) -> Shares:
    """The shares of a method that acts on all blocks.

    Args:
        name: Name of the method.
        backbone: The backbone that the method acts on.
        budget: The budget that the method is fitted to.

    Raises:
        MethodError: The method cannot act on a block.
    """
    method = get_method(name)
    for block in backbone.blocks:
        if (obstacle := method.obstacle(block)) is not None:
            raise MethodError(f"{name} cannot act on this backbone: {obstacle}")
    smallest, largest = at_sizes(method, backbone, lambda block: 1), at_sizes(method, backbone, method.max_size)
    try:
        fitted, fits = fit(uniform(name), backbone, budget), True
    except BudgetError:
        fitted, fits = smallest, False
    return Shares(
        label=method.label(backbone.blocks[0], fitted.placements[0].size),
        trained=fitted.n_params / backbone.n_params,
        changed=n_changed(fitted, backbone) / backbone.n_params,
        smallest=smallest.n_params / backbone.n_params,
        largest=largest.n_params / backbone.n_params,
        fits=fits,
    )


def at_sizes(method: Method, backbone: Backbone, size_of: Callable[[Block], int]) -> Architecture:
    """A method on every block where it has a placement, at the size that `size_of` gives for the block."""
    placements: list[Placement] = []
    seen: set[Hashable] = set()
    for block in backbone.blocks:
        if not is_placed(method, block, backbone.blocks[0]):
            continue
        size, together = size_of(block), sharing_key(method, block.stack, 0)
        n_params = count_placed(method, block, size, together not in seen)
        seen.add(together)
        placements.append(
            Placement(stack=block.stack, block=block.index, method=method.name, size=size, n_params=n_params)
        )
    return Architecture(placements=tuple(placements))


def n_changed(architecture: Architecture, backbone: Backbone) -> int:
    """Number of parameters in which the result differs from the backbone, including added ones.

    Parameters that placements share count once. A matrix that several methods change as a whole counts once; single
    weights that a sparse method chooses count in addition, which gives an upper bound.
    """
    blocks = {(block.stack, block.index): block for block in backbone.blocks}
    whole: dict[tuple[str, int, str], int] = {}
    total = 0
    seen: set[Hashable] = set()
    for placement in architecture.placements:
        block, method = blocks[placement.stack, placement.block], get_method(placement.method)
        if method.changes == "whole matrices":
            for name, weights in whole_matrices(method, block).items():
                whole[placement.stack, placement.block, name] = weights
            continue
        total += method.changed(block, placement.size)
        together = sharing_key(method, placement.stack, placement.group)
        if isinstance(method, Sharing) and together not in seen:
            total += method.n_shared(block, placement.size)
        seen.add(together)
    return total + sum(whole.values())
