"""Elementary changes of a choice: what `DesignSpace.neighbours` is built from.

Both kinds are symmetric: when b is one change away from a, a is one change away from b.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import TypeVar

Value = TypeVar("Value", str, float, int)


def next_values(values: Sequence[Value], current: Value) -> list[Value]:
    """The next-lower and the next-higher of some numbers, which may be written as texts."""
    ordered = sorted(values, key=float)
    place = ordered.index(current)
    return ordered[max(0, place - 1) : place] + ordered[place + 1 : place + 2]


def toggled(chosen: str, names: Sequence[str]) -> list[str]:
    """The subsets that one name more or one name less makes of `adapter+lora`; never the empty one."""
    parts = chosen.split("+")
    changed = [[name for name in names if (name in parts) != (name == other)] for other in names]
    return ["+".join(subset) for subset in changed if subset]


def subsets(names: Sequence[str]) -> tuple[str, ...]:
    """Every non-empty subset, smaller ones first: `G1`, `G2`, `G1+G2`."""
    return tuple("+".join(c) for size in range(1, len(names) + 1) for c in combinations(names, size))
