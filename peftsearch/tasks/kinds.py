"""Kinds of tasks, and the form of what is right for their examples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

Kind = Literal["classification", "regression", "generation", "tagging", "multi_label"]

TITLES: dict[str, str] = {"tagging": "token classification", "multi_label": "multi-label classification"}
"""Kinds in words, where those differ from the name."""

Answers = Sequence[int] | Sequence[float] | Sequence[Sequence[int]]
"""Class indices, targets, or several numbers for each example: its tags, or a 1 or 0 for every class."""


def flat(answers: Answers) -> list[Any]:
    """All numbers of answers in one list."""
    return [number for row in answers for number in (row if isinstance(row, list) else [row])]
