"""Pack which validation examples are predicted right into a text, and read it back."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean


def packed_hits(right: Sequence[Sequence[float]]) -> str:
    """Which predictions are right, task by task: `0111 10`, or scores: `-1.204000,-0.300000`; empty without such."""
    return " ".join(map(_packed, right)) if all(right) else ""


def hits_of(rows: Sequence[str]) -> tuple[float, ...]:
    """Share of the seeds that predict each validation example right, or its mean score, from what `packed_hits` wrote.

    With several tasks the examples are weighted, so that the mean of all is the mean over the tasks of their means.

    Returns:
        One share an example; empty where a training does not say.
    """
    unpacked = [[_unpacked(task) for task in row.split(" ")] for row in rows]
    if not rows or not rows[0] or len({tuple(map(len, row)) for row in unpacked}) != 1:
        return ()
    tasks = [list(zip(*columns, strict=True)) for columns in zip(*unpacked, strict=True)]
    n_examples = sum(map(len, tasks))
    return tuple(mean(hits) * n_examples / (len(tasks) * len(examples)) for examples in tasks for hits in examples)


def _packed(task: Sequence[float]) -> str:
    if all(isinstance(hit, bool) for hit in task):
        return "".join("01"[int(hit)] for hit in task)
    return ",".join(f"{score:.6f}" for score in task)


def _unpacked(task: str) -> list[float]:
    return [float(score) for score in (task.split(",") if "." in task else task)]
