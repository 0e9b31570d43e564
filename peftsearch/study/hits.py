"""Pack the per-example results of a training into a text, and unpack them."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean


def packed_hits(right: Sequence[Sequence[float]]) -> str:
    """Pack the hits of each task, `0111 10`, or the scores, `-1.204000,-0.300000`; empty if a task has none."""
    return " ".join(map(_packed, right)) if all(right) else ""


def hits_of(rows: Sequence[str]) -> tuple[float, ...]:
    """Share of the seeds that predict each validation example right, or its mean score, from packed hits.

    With several tasks, the examples are weighted so that their overall mean is the mean of the task means.

    Args:
        rows: One text per seed, written by `packed_hits`.

    Returns:
        One value per example; empty if the seeds do not agree on the examples or the first has none.
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
