"""The part of the space `s4` that the benchmark trains in full: 324 designs, so that a replay needs no surrogate.

`SPACE` is a design space as the samplers see one: grouping (2) x allocation (2) x methods of each of four groups (3).
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any

from peftsearch.design.design import Design
from peftsearch.design.space import Choice, Dimension, load_space

CHOICES: dict[str, tuple[Choice, ...]] = {
    "grouping": ("increasing", "bottleneck"),
    "allocation": ("increasing", "uniform"),
    "tunable": ("G1+G2+G3+G4",),
    **{f"methods.G{i}": ("adapter", "lora", "prefix+bitfit") for i in (1, 2, 3, 4)},
}


class TableSpace:
    """`s4` with fewer choices a dimension."""

    name = "s4-table"

    def __init__(self) -> None:
        self._whole = load_space("s4")
        self.dimensions = tuple(Dimension(name=d.name, choices=CHOICES[d.name]) for d in self._whole.dimensions)

    @property
    def n_designs(self) -> int:
        """All combinations."""
        return len(self.points())

    def points(self) -> list[dict[str, Choice]]:
        """Every point, in a fixed order."""
        names = [d.name for d in self.dimensions]
        return [dict(zip(names, values, strict=True)) for values in product(*(d.choices for d in self.dimensions))]

    def design(self, params: Mapping[str, Any]) -> Design:
        """As in the whole space."""
        return self._whole.design(params)

    def params(self, design: Design) -> dict[str, Choice] | None:
        """As in the whole space; None outside the table."""
        found = self._whole.params(design)
        return found if found is not None and all(found[d.name] in d.choices for d in self.dimensions) else None

    def neighbours(self, params: Mapping[str, Choice]) -> list[dict[str, Choice]]:
        """Every point that differs in one dimension."""
        return [{**params, d.name: choice} for d in self.dimensions for choice in d.choices if choice != params[d.name]]

    def bound_to(self, n_blocks: int, methods: tuple[str, ...]) -> TableSpace:
        """Itself: the six blocks of MiniLM tell both groupings apart, and all methods act there."""
        return self


SPACE = TableSpace()
