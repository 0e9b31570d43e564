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


def toggled(chosen: str, names: Sequence[str], most: int | None = None) -> list[str]:
    """The subsets that one name more or less makes of `adapter+lora`; never the empty one, none of over `most`."""
    parts = chosen.split("+")
    changed = [[name for name in names if (name in parts) != (name == other)] for other in names]
    return ["+".join(subset) for subset in changed if 0 < len(subset) <= (most or len(names))]


def subsets(names: Sequence[str], most: int | None = None) -> tuple[str, ...]:
    """Every non-empty subset of at most `most` names, smaller ones first: `G1`, `G2`, `G1+G2`."""
    sizes = range(1, min(len(names), most or len(names)) + 1)
    return tuple("+".join(c) for size in sizes for c in combinations(names, size))
