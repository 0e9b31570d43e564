"""Fit a design into a budget: exact sizes for every block, never above the budget.

A slot is one method on one block; where the blocks of a group share parameters, on all blocks of the group, and of the
groups beside it with the same methods. The rule, in whole sizes:

1. Every slot gets its smallest size. If these alone exceed the budget, the design cannot fit; a design that may leave
   blocks out loses the block nearest to the input, then the next, until the rest fits.
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
from collections.abc import Hashable
from dataclasses import dataclass, field
from fractions import Fraction
from math import ceil, floor

from peftsearch.backbone.anatomy import Backbone, Block
from peftsearch.design.architecture import Architecture, Placement
from peftsearch.design.budget import Budget
from peftsearch.design.design import Design
from peftsearch.design.grouping import group_of_blocks
from peftsearch.errors import BudgetError, ConfigError, MethodError
from peftsearch.methods import get_method, rank_of
from peftsearch.methods.abilities import ModelWide, Sharing, count_placed, sharing_key
from peftsearch.methods.method import Method


@dataclass(kw_only=True, slots=True)
class _Slot:
    """One method on one block, or on those of a group, while it is being sized."""

    blocks: list[Block]
    method: Method
    weight: float
    group: int = 0
    """Group of the blocks, for methods that share parameters per group."""
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
            self.counts[size] = sum(self.count_on(block, size) for block in self.blocks)
        return self.counts[size]

    def count_on(self, block: Block, size: int) -> int:
        """Parameters on one of the blocks, with those that the group shares if it is the first."""
        method = self.method
        per_group = isinstance(method, Sharing) and method.per_group
        return count_placed(method, block, size, per_group and block is self.blocks[0])

    @property
    def cost(self) -> int:
        return self.count(self.size) + self.shared

    @property
    def step(self) -> int | None:
        """Cost of the next size; None at the largest or only one."""
        self.largest = self.largest or min(map(self.method.max_size, self.blocks))
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
    allowed = floor(_share(design) * budget.n_params)
    slots = _slots(design, backbone)
    for first in range(1, len(backbone.blocks) if design.leave_out else 0):
        if sum(slot.cost for slot in slots) <= allowed:
            break
        slots = _slots(design, backbone, first) or slots
    left = allowed - sum(slot.cost for slot in slots)
    if left < 0:
        smallest = smallest_budget(design, backbone)
        raise BudgetError(
            f"the design needs at least {smallest:,} trainable parameters ({100 * smallest / backbone.n_params:.3g}%) "
            f"and the budget is {budget.n_params:,} ({budget.percent:.3g}%)",
            smallest=smallest,
        )
    _spend_the_rest(slots, _grow_evenly(slots, left))
    return Architecture(placements=_placements(slots, backbone))


def _placements(slots: list[_Slot], backbone: Backbone) -> tuple[Placement, ...]:
    """A placement for every block of every slot, input side first, then in the order of the methods."""
    order = {(block.stack, block.index): i for i, block in enumerate(backbone.blocks)}
    placed = [
        Placement(
            stack=block.stack,
            block=block.index,
            method=slot.method.name,
            size=slot.size,
            n_params=slot.count_on(block, slot.size) + slot.shared,
            group=slot.group,
        )
        for slot in slots
        for block in slot.blocks
    ]
    return tuple(sorted(placed, key=lambda p: (order[p.stack, p.block], rank_of(p.method))))


def smallest_budget(design: Design, backbone: Backbone) -> int:
    """The smallest budget, in trainable parameters, that fits the design; 0 for the task head alone.

    For a design that may leave blocks out, the smallest budget that fits the last of its blocks.

    For a design limited to a share of the budget, the smallest budget whose share, rounded down, is enough.

    Raises:
        MethodError: A method is unknown, cannot act on a block, or has a fixed size outside its range there.
        ConfigError: The grouping does not suit the number of blocks, or a fixed size is missing.
    """
    # The exact inverse of `fit`, whose allowance is floor(share x budget): floor(s b) >= c just when b >= c / s.
    starts = range(len(backbone.blocks)) if design.leave_out else (0,)
    slots = [found for first in starts if (found := _slots(design, backbone, first))]
    return ceil(sum(slot.cost for slot in slots[-1]) / _share(design)) if slots else 0


def _share(design: Design) -> Fraction:
    """The share as written: 0.3 is 3/10, not the float just below it, which could cost one parameter."""
    return Fraction(str(design.budget_share))


def _slots(design: Design, backbone: Backbone, n_left_out: int = 0) -> list[_Slot]:
    """The slots at their smallest sizes, on the blocks behind the first `n_left_out`."""
    groups = group_of_blocks(design.grouping, len(backbone.blocks), len(design.methods))
    runs = _runs(design)
    sizes = dict(design.sizes)
    slots: list[_Slot] = []
    first: dict[Hashable, _Slot] = {}
    for block, group in list(zip(backbone.blocks, groups, strict=True))[n_left_out:]:
        names = design.methods[group]
        for method in sorted(map(get_method, names), key=lambda m: rank_of(m.name)):
            if (obstacle := method.obstacle(block)) is not None:
                raise MethodError(f"{method.name} cannot act on this backbone: {obstacle}")
            weight = design.allocation[group] / len(names)
            per_group = isinstance(method, Sharing) and method.per_group
            together = sharing_key(method, block.stack, runs[group])
            known = first.get(together)
            if known is not None and isinstance(method, ModelWide):
                known.weight += weight  # one placement, which claims the shares of all its blocks
                continue
            if known is not None and per_group:
                known.weight += weight
                known.blocks.append(block)
                continue
            place = backbone.blocks[0] if isinstance(method, ModelWide) else block
            slot = _Slot(blocks=[place], method=method, weight=weight, group=runs[group] if per_group else 0)
            if sizes:
                slot.size, slot.fixed = _fixed_size(method, place, sizes), True
            if known is None and isinstance(method, Sharing) and not per_group:
                slot.shared = method.n_shared(place, slot.size)
            first.setdefault(together, slot)
            slots.append(slot)
    return slots


def _runs(design: Design) -> list[int]:
    """For each group the first of the run of equal mixes that it belongs to, which share what a method shares."""
    runs: list[int] = []
    for i, methods in enumerate(design.methods):
        runs.append(runs[-1] if runs and set(methods) == set(design.methods[i - 1]) else i)
    return runs


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
