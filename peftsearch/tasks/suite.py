"""The tasks of one study: one, or several whose mean score a design is judged by, as arXiv 2301.01821 (sec. 4) does.

A design is trained on each task apart, from the same backbone, with a head of the task's own.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from statistics import mean

from peftsearch.errors import TaskError
from peftsearch.tasks.task import Task


@dataclass(frozen=True, kw_only=True, slots=True)
class Suite:
    """One or several tasks; with one, everything is as the task has it."""

    tasks: tuple[Task, ...]

    def __post_init__(self) -> None:
        names = [task.name for task in self.tasks]
        doubled = next((name for name in names if names.count(name) > 1), None)
        if doubled is not None:
            raise TaskError(f"task: {doubled!r} is named twice; name each task once")

    @property
    def name(self) -> str:
        """The names with commas between."""
        return ",".join(task.name for task in self.tasks)

    @property
    def kind(self) -> str:
        """The kind that all have, or `mixed`."""
        kinds = {task.kind for task in self.tasks}
        return kinds.pop() if len(kinds) == 1 else "mixed"

    @property
    def metric(self) -> str:
        """The metric that all have, or `score`: the mean of different metrics."""
        metrics = {task.metric for task in self.tasks}
        return metrics.pop() if len(metrics) == 1 else "score"

    @property
    def source(self) -> str:
        """Where the data came from."""
        return "; ".join(task.source for task in self.tasks)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was noticed, with the task's name where there are several."""
        several = len(self.tasks) > 1
        return tuple(f"{task.name}: {note}" if several else note for task in self.tasks for note in task.notes)

    @property
    def fingerprint(self) -> str:
        """Of all data, in the order of the tasks."""
        if len(self.tasks) == 1:
            return self.tasks[0].fingerprint
        return hashlib.sha256(",".join(task.fingerprint for task in self.tasks).encode()).hexdigest()[:16]

    @property
    def majority_score(self) -> float:
        """Mean score of always answering the majority class."""
        return mean(task.majority_score for task in self.tasks)

    @property
    def n_train(self) -> int:
        """Training examples of all tasks."""
        return sum(len(task.train) for task in self.tasks)

    @property
    def n_validation(self) -> int:
        """Validation examples of all tasks."""
        return sum(len(task.validation) for task in self.tasks)

    @property
    def n_test(self) -> int:
        """Test examples of all tasks; 0 where one of them has no test split."""
        sizes = [len(task.test) if task.test is not None else 0 for task in self.tasks]
        return sum(sizes) if all(sizes) else 0
