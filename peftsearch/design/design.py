"""Designs: points of a search space."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from peftsearch.errors import MALFORMED, ConfigError

UNTUNED = ("head", "frozen")
"""Names of the baseline without placements: only the task head, or the frozen model where there is no head."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Design:
    """A point of a search space (arXiv 2301.01821, sec. 3): choices, and sizes only where a space fixes them.

    Raises:
        ConfigError: A size is below 1 or given twice, or the share of the budget is not above 0 and at most 1.
    """

    grouping: str
    """Pattern by which consecutive blocks fall into groups: `spindle`, ..."""
    allocation: tuple[float, ...]
    """Share of the budget of one block of each group, relative to the others'; `(1, 1, 1, 1)` is uniform."""
    methods: tuple[tuple[str, ...], ...]
    """Methods of each group, input side first; an empty tuple leaves the group untuned."""
    learning_rate: float | None = None
    """Base learning rate; None takes that of the training settings."""
    sizes: tuple[tuple[str, int], ...] = ()
    """Size of each method on every block that it tunes, sorted by name; empty lets the budget decide."""
    budget_share: float = 1.0
    """Share of the study's budget that the design may spend, above 0 and at most 1."""
    leave_out: bool = False
    """Whether blocks are left out, from the input side, where even the smallest sizes on all of them are too much."""

    def __post_init__(self) -> None:
        if any(size < 1 for _, size in self.sizes) or len(dict(self.sizes)) < len(self.sizes):
            raise ConfigError(f"design: sizes must be one number from 1 for each method, got {dict(self.sizes)}")
        if not 0 < self.budget_share <= 1:
            raise ConfigError(f"design: budget_share must be above 0 and at most 1, got {self.budget_share}")
        object.__setattr__(self, "sizes", tuple(sorted(self.sizes)))  # one order, so that equal designs are equal

    @property
    def tunable(self) -> tuple[int, ...]:
        """Indices of the groups that are tuned, from 0."""
        return tuple(i for i, methods in enumerate(self.methods) if methods)

    @property
    def key(self) -> str:
        """Unique text of the design: equal designs have equal keys."""
        return json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))

    def to_dict(self) -> dict[str, Any]:
        """The design as YAML and JSON hold it; `from_dict` reads it back."""
        out: dict[str, Any] = {
            "grouping": self.grouping,
            "allocation": list(self.allocation),
            "methods": [list(methods) for methods in self.methods],
        }
        if self.learning_rate is not None:
            out["learning_rate"] = self.learning_rate
        if self.sizes:
            out["sizes"] = dict(self.sizes)
        if self.budget_share != 1:
            out["budget_share"] = self.budget_share
        if self.leave_out:
            out["leave_out"] = True
        return out

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Design:
        """Read the mapping that `to_dict` wrote.

        Raises:
            ConfigError: Keys are missing or unknown, or a value has a wrong type.
        """
        unknown = set(data) - {f.name for f in fields(cls)}
        if unknown:
            raise ConfigError(f"design: unknown keys {sorted(map(str, unknown))}")
        try:
            rate = data.get("learning_rate")
            return cls(
                grouping=str(data["grouping"]),
                allocation=tuple(float(x) for x in data["allocation"]),
                methods=tuple(tuple(str(name) for name in group) for group in data["methods"]),
                learning_rate=None if rate is None else float(rate),
                sizes=tuple((str(name), int(size)) for name, size in data.get("sizes", {}).items()),
                budget_share=float(data.get("budget_share", 1.0)),
                leave_out=bool(data.get("leave_out", False)),
            )
        except MALFORMED as error:
            raise ConfigError(f"design: {type(error).__name__}: {error}") from error
