"""Fit a design into a budget: exact sizes for every block, never above the budget.

A slot is one method on one block. The rule, in whole sizes:

1. Every slot gets its smallest size. If these alone exceed the budget, the design cannot fit.
2. A slot's target is its fair share: the allocation's weight of its block, divided evenly over the block's methods.
   The next size always goes to the slot whose cost after growing is smallest against its target (ties: input side
   first, then the order of the methods in the table), until the next one in this order no longer fits. BitFit
   has few sizes at fixed costs and thus grows to the largest subset within its share.
3. The remainder goes, largest step first, to slots where one more step fits.

The order of step 2 does not depend on the budget, and step 3 takes the largest of steps of constant cost first; so a
larger budget never gives fewer parameters.

A method that acts once per model has one slot, on the first block, whose target is the sum of the targets it would have
on every block of its groups. Parameters that all placements of a method share are a cost of its first slot.

A design may be limited to a share of the budget: the rule then works on floor(share x budget). A design that fixes its
sizes gets exactly these sizes: each is both the smallest and the largest, and nothing grows.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from fractions import Fraction
from math import ceil, floor

from peftsearch.backbone.anatomy import Backbone, Block
from peftsearch.design.architecture import Architecture, Placement
from peftsearch.design.budget import Budget
from peftsearch.design.design import Design
from peftsearch.design.grouping import group_of_blocks
from peftsearch.errors import BudgetError, ConfigError, MethodError
from peftsearch.methods import METHODS, get_method
from peftsearch.methods.abilities import ModelWide, Sharing
from peftsearch.methods.method import Method


@dataclass(kw_only=True, slots=True)
class _Slot:
    """One method on one block while it is being sized."""

    block: Block
    method: Method
    weight: float
    size: int = 1
    fixed: bool = False
    """Whether the design itself fixes the size."""
    shared: int = 0
    """Parameters that all slots of the method share, counted in its first slot; 0 in the others."""

    counts: dict[int, int] = field(default_factory=dict)
    """Cache of parameters by size: a budget passes through many sizes, each needed several times."""
    largest: int = 0
    """Cache of the largest size; 0 before it is known."""

    def count(self, size: int) -> int:
        if size not in self.counts:
            self.counts[size] = self.method.count(self.block, size)
        return self.counts[size]

    @property
    def cost(self) -> int:
        return self.count(self.size) + self.shared

    @property
    def step(self) -> int | None:
        """Cost of the next size; None at the largest or only one."""
        self.largest = self.largest or self.method.max_size(self.block)
        if self.fixed or self.size >= self.largest:
            return None
        return self.count(self.size + 1) - self.count(self.size)


def fit(design: Design, backbone: Backbone, budget: Budget) -> Architecture:
    """Size a design for a backbone under a budget.

    Args:
        design: The design to size.
        backbone: The backbone whose blocks give the widths.
        budget: The most trainable parameters, excluding the head.

    Returns:
        An architecture of at most the design's share of the budget; deterministic, and never smaller for a larger
        budget.

    Raises:
        BudgetError: The design's smallest sizes exceed its share; `smallest` is the budget that the design needs.
        MethodError: A method is unknown, cannot act on a block, or has a fixed size outside its range there.
        ConfigError: The grouping does not suit the number of blocks, or a fixed size is missing.
    """
    slots = _slots(design, backbone)
    left = floor(_share(design) * budget.n_params) - sum(slot.cost for slot in slots)
    if left < 0:
        smallest = smallest_budget(design, backbone)
        raise BudgetError(
            f"the design needs at least {smallest:,} trainable parameters ({100 * smallest / backbone.n_params:.3g}%) "
            f"and the budget is {budget.n_params:,} ({budget.percent:.3g}%)",
            smallest=smallest,
        )
    _spend_the_rest(slots, _grow_evenly(slots, left))
    return Architecture(
        placements=tuple(
            Placement(stack=s.block.stack, block=s.block.index, method=s.method.name, size=s.size, n_params=s.cost)
            for s in slots
        )
    )


def smallest_budget(design: Design, backbone: Backbone) -> int:
    """The smallest budget, in trainable parameters, that fits the design; 0 for the task head alone.

    For a design limited to a share of the budget, the smallest budget whose share, rounded down, is enough.

    Raises:
        MethodError: A method is unknown, cannot act on a block, or has a fixed size outside its range there.
        ConfigError: The grouping does not suit the number of blocks, or a fixed size is missing.
    """
    # The exact inverse of `fit`, whose allowance is floor(share x budget): floor(s b) >= c just when b >= c / s.
    return ceil(sum(slot.cost for slot in _slots(design, backbone)) / _share(design))


def _share(design: Design) -> Fraction:
    """The share as written: 0.3 is 3/10, not the float just below it, which could cost one parameter."""
    return Fraction(str(design.budget_share))


def _slots(design: Design, backbone: Backbone) -> list[_Slot]:
    groups = group_of_blocks(design.grouping, len(backbone.blocks), len(design.methods))
    order = {name: rank for rank, name in enumerate(METHODS)}
    sizes = dict(design.sizes)
    slots: list[_Slot] = []
    first: dict[str, _Slot] = {}
    for block, group in zip(backbone.blocks, groups, strict=True):
        names = design.methods[group]
        for method in sorted(map(get_method, names), key=lambda m: order[m.name]):
            if (obstacle := method.obstacle(block)) is not None:
                raise MethodError(f"{method.name} cannot act on this backbone: {obstacle}")
            weight = design.allocation[group] / len(names)
            if isinstance(method, ModelWide) and method.name in first:
                first[method.name].weight += weight  # one placement, which claims the shares of all its blocks
                continue
            place = backbone.blocks[0] if isinstance(method, ModelWide) else block
            slot = _Slot(block=place, method=method, weight=weight)
            if sizes:
                slot.size, slot.fixed = _fixed_size(method, place, sizes), True
            if isinstance(method, Sharing) and method.name not in first:
                slot.shared = method.n_shared(place)
            first.setdefault(method.name, slot)
            slots.append(slot)
    return slots


def _fixed_size(method: Method, block: Block, sizes: dict[str, int]) -> int:
    if method.name not in sizes:
        raise ConfigError(f"design: its sizes lack {method.name!r}; fix the sizes of all methods or of none")
    size, largest = sizes[method.name], method.max_size(block)
    if size > largest:
        raise MethodError(f"{method.name}: {method.knob} {size} is outside 1 to {largest} on {block.path}")
    return size


def _grow_evenly(slots: list[_Slot], left: int) -> int:
    """Step 2; returns the remaining budget."""

    def entry(i: int) -> tuple[float, int] | None:
        step = slots[i].step
        return None if step is None else ((slots[i].cost + step) / slots[i].weight, i)

    # A slot's key depends on that slot alone, so after a step only the top entry of the heap has to be replaced.
    heap = [e for e in map(entry, range(len(slots))) if e is not None]
    heapq.heapify(heap)
    while heap:
        _, i = heap[0]
        step = slots[i].step
        # Stopping here, instead of trying cheaper slots, gives a larger budget the same sequence of steps, only longer.
        if step is None or step > left:
            break
        left -= step
        slots[i].size += 1
        following = entry(i)
        if following is None:
            heapq.heappop(heap)
        else:
            heapq.heapreplace(heap, following)
    return left


def _spend_the_rest(slots: list[_Slot], left: int) -> None:
    """Step 3; slots with unequal steps (BitFit's subsets) stay as they are, which keeps the total monotone."""
    linear = [s for s in slots if s.method.knob != "subset"]
    while True:
        fitting = [s for s in linear if s.step is not None and s.step <= left]
        if not fitting:
            return
        # Among equal steps the slot furthest below its target grows, as in step 2.
        slot = max(fitting, key=lambda s: (s.step or 0, -s.cost / s.weight))
        left -= slot.step or 0
        slot.size += 1
