"""What is done with faulty rows, and how they are told, wherever they are found."""

from __future__ import annotations

from collections.abc import Sequence

from peftsearch.errors import one_line

ERROR, DROP = "error", "drop"
"""Refuse the data, or leave faulty rows out."""
WAY_OUT = ", or leave them out with --bad-rows drop"
SHOWN = 3
"""Faults that are shown of many."""


def reason(fault: str) -> str:
    """A message without what to do about one row, which follows its last semicolon."""
    return fault.rpartition("; ")[0] or fault


def shown(reasons: Sequence[str], width: int, n: int = SHOWN) -> str:
    """The first reasons in one line, each of at most `width` characters."""
    first = [one_line(each, width) for each in reasons[:n]]
    return "; ".join([*first, "..."] if len(reasons) > n else first)
