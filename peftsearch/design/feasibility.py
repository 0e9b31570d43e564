"""Check which designs of a space fit a backbone and a budget, and that at least one does."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from peftsearch.backbone.anatomy import Backbone
from peftsearch.design.budget import Budget
from peftsearch.design.design import Design
from peftsearch.design.fitting import fit, smallest_budget
from peftsearch.design.memory import MemoryLimit
from peftsearch.design.space import Choice, DesignSpace
from peftsearch.errors import BudgetError, MethodError
from peftsearch.units import show_bytes


def feasibility(backbone: Backbone, budget: Budget, memory: MemoryLimit | None = None) -> Callable[[Design], bool]:
    """A cached check whether a design fits the budget, the backbone's widths and a memory limit."""

    @lru_cache(maxsize=100_000)
    def feasible(design: Design) -> bool:
        try:
            if not 0 < smallest_budget(design, backbone) <= budget.n_params:
                return False
            return memory is None or fit(design, backbone, budget).n_params <= memory.room
        except MethodError:  # a size that the space fixes is too large for a block
            return False

    return feasible


def require_a_fit(space: DesignSpace, backbone: Backbone, budget: Budget, memory: MemoryLimit | None = None) -> None:
    """Check that at least one design fits the budget and the memory limit.

    Raises:
        BudgetError: No design fits; the message names the smallest budget that does, or the smallest memory need.
        MethodError: No design has sizes that the backbone's blocks can take.
    """
    cost = _smallest_cost(space, backbone)
    if cost > budget.n_params:
        raise BudgetError(
            f"--budget {budget.text} ({budget.n_params:,} parameters) holds no design of space {space.name} on "
            f"{backbone.name}: the smallest needs {cost:,} ({100 * cost / backbone.n_params:.3g}%)",
            smallest=cost,
        )
    if memory is not None and cost > memory.room:
        raise BudgetError(
            f"--max-memory {show_bytes(memory.limit)} is too little for {backbone.name} in any design of space "
            f"{space.name}: the smallest has {cost:,} parameters, with which weights, gradients and optimizer states "
            f"alone take {show_bytes(memory.certain(cost))}"
        )


def _smallest_cost(space: DesignSpace, backbone: Backbone) -> int:
    """Cost of the cheapest design, among the points that the space itself names or else by descent."""
    points = getattr(space, "smallest_points", None)
    if points is None:
        return min(_descend(space, backbone, first) for first in space.dimensions[0].choices)
    costs, faults = [], []
    for design in map(space.design, points()):
        try:
            costs.append(smallest_budget(design, backbone))
        except MethodError as error:
            faults.append(error)
    if not costs:
        raise MethodError(f"space {space.name}: none of its designs fits the blocks of {backbone.name}: {faults[0]}")
    return min(costs)


def _descend(space: DesignSpace, backbone: Backbone, first: Choice) -> int:
    """Cost of the cheapest design with this first choice, by coordinate descent: a cost is a sum over groups."""
    head, *rest = space.dimensions
    params: dict[str, Choice] = {head.name: first, **{d.name: d.choices[-1] for d in rest}}
    cost = smallest_budget(space.design(params), backbone) or backbone.n_params
    improved = True
    while improved:
        improved = False
        for dimension, choice in ((d, c) for d in rest for c in d.choices):
            trial = {**params, dimension.name: choice}
            found = smallest_budget(space.design(trial), backbone)
            if 0 < found < cost:
                params, cost, improved = trial, found, True
    return cost
