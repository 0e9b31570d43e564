"""Kinds of tasks, and the form of what is right for their examples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

Kind = Literal["classification", "regression", "generation", "tagging", "multi_label", "question_answering"]

QUESTIONS: Kind = "question_answering"

TITLES: dict[str, str] = {
    "tagging": "token classification",
    "multi_label": "multi-label classification",
    "question_answering": "extractive question answering",
}
"""Kinds in words, where those differ from the name."""

Answers = Sequence[int] | Sequence[float] | Sequence[Sequence[int]]
"""Class indices, targets, or several numbers for each example: tags, a 1 or 0 for every class, or an answer's place."""


def flat(answers: Answers) -> list[Any]:
    """All numbers of answers in one list."""
    return [number for row in answers for number in (row if isinstance(row, list) else [row])]


def n_outputs(kind: str | None, n_labels: int) -> int:
    """Outputs of the head: one for each class or tag, 1 for a target, 2 for the ends of an answer, 0 without a head."""
    return {"regression": 1, "generation": 0, QUESTIONS: 2}.get(kind or "", n_labels)
