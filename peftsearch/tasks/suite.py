"""The tasks of one study: a single task, or several whose mean score ranks designs (arXiv 2301.01821, sec. 4).

A design is trained on each task separately, from the same backbone, with a separate head.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from statistics import mean

from peftsearch.errors import TaskError
from peftsearch.tasks.kinds import TITLES
from peftsearch.tasks.task import Task

_ALONE = ("generation", "tagging", "question_answering")
"""Kinds whose models are not those of other kinds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Suite:
    """One or several tasks; with a single task, all properties are the task's own."""

    tasks: tuple[Task, ...]

    def __post_init__(self) -> None:
        names = [task.name for task in self.tasks]
        doubled = next((name for name in names if names.count(name) > 1), None)
        if doubled is not None:
            raise TaskError(f"task: {doubled!r} is named twice; name each task once")
        kinds = {task.kind for task in self.tasks}
        alone = next((task for task in self.tasks if task.kind in _ALONE), None)
        if len(kinds) > 1 and alone is not None:
            raise TaskError(
                f"task {alone.name!r}: is {TITLES.get(alone.kind, alone.kind)}, which needs a model of its own; run it "
                "apart from the other tasks"
            )

    @property
    def name(self) -> str:
        """Names of the tasks, separated by commas."""
        return ",".join(task.name for task in self.tasks)

    @property
    def kind(self) -> str:
        """The common kind of all tasks, or `mixed`."""
        kinds = {task.kind for task in self.tasks}
        return kinds.pop() if len(kinds) == 1 else "mixed"

    @property
    def metric(self) -> str:
        """The common metric of all tasks, or `score` for the mean of different metrics."""
        metrics = {task.metric for task in self.tasks}
        return metrics.pop() if len(metrics) == 1 else "score"

    @property
    def source(self) -> str:
        """Origin of the data of all tasks."""
        return "; ".join(task.source for task in self.tasks)

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes on all tasks, with the task's name if there are several."""
        several = len(self.tasks) > 1
        return tuple(f"{task.name}: {note}" if several else note for task in self.tasks for note in task.notes)

    @property
    def fingerprint(self) -> str:
        """Fingerprint of all data, which depends on the order of the tasks."""
        if len(self.tasks) == 1:
            return self.tasks[0].fingerprint
        return hashlib.sha256(",".join(task.fingerprint for task in self.tasks).encode()).hexdigest()[:16]

    @property
    def majority_name(self) -> str:
        """What is always answered for `majority_score`."""
        return "answer of none" if self.kind == "question_answering" else "majority class"

    @property
    def majority_score(self) -> float:
        """Mean score of always answering the majority class."""
        return mean(task.majority_score for task in self.tasks)

    @property
    def reported_majority(self) -> float:
        """The same on the reported examples."""
        return mean(task.majority_on(task.test or task.validation) for task in self.tasks)

    @property
    def n_train(self) -> int:
        """Number of training examples of all tasks."""
        return sum(len(task.train) for task in self.tasks)

    @property
    def n_validation(self) -> int:
        """Number of validation examples of all tasks."""
        return sum(len(task.validation) for task in self.tasks)

    @property
    def n_test(self) -> int:
        """Number of test examples of all tasks; 0 if a task has no test split."""
        sizes = [len(task.test) if task.test is not None else 0 for task in self.tasks]
        return sum(sizes) if all(sizes) else 0
