"""Elementary changes of a choice, the building blocks of `DesignSpace.neighbours`.

Both kinds are symmetric: when b is one change away from a, a is one change away from b.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import TypeVar

Value = TypeVar("Value", str, float, int)


def next_values(values: Sequence[Value], current: Value) -> list[Value]:
    """The values next below and above the current one; values are numbers, or numbers written as text."""
    ordered = sorted(values, key=float)
    place = ordered.index(current)
    return ordered[max(0, place - 1) : place] + ordered[place + 1 : place + 2]


def toggled(chosen: str, names: Sequence[str], most: int | None = None) -> list[str]:
    """The non-empty subsets of at most `most` names that differ from one such as `adapter+lora` by one name."""
    parts = chosen.split("+")
    changed = [[name for name in names if (name in parts) != (name == other)] for other in names]
    return ["+".join(subset) for subset in changed if 0 < len(subset) <= (most or len(names))]


def subsets(names: Sequence[str], most: int | None = None) -> tuple[str, ...]:
    """Every non-empty subset of at most `most` names, smaller ones first: `G1`, `G2`, `G1+G2`."""
    sizes = range(1, min(len(names), most or len(names)) + 1)
    return tuple("+".join(c) for size in sizes for c in combinations(names, size))
