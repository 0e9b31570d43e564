"""Snapshots of a training in one safetensors file, from which a killed training resumes.

A snapshot holds the trained parameters, the optimizer's moments, the best parameters so far, and the course. Random
generators need no state, because they are reseeded at every step.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from peftsearch.engine.snapshot import State, copied, moments_of, part, put, put_moments
from peftsearch.errors import StudyError, one_line
from peftsearch.files import replacing

FORMAT = "peftsearch-snapshot/1"


@dataclass(kw_only=True, slots=True)
class Course:
    """The course of one seed's training so far."""

    seed: int
    step: int = 0
    """Number of optimizer steps done."""
    losses: list[float] = field(default_factory=list)
    """Training loss of each step."""
    scores: dict[int, float] = field(default_factory=dict)
    """Validation score by step."""
    best_step: int = 0
    """Step with the highest validation score, the first of equal ones; 0 before the first evaluation."""
    train_s: float = 0.0
    """Time of all steps in seconds, excluding evaluations."""
    stopped: bool = False
    """Whether it ended before its last step, as its score did not get better."""
    reason: str = ""
    """Reason why the training diverged; empty if it did not."""

    @property
    def best(self) -> float | None:
        """The highest validation score."""
        return self.scores.get(self.best_step)

    def is_done(self, n_steps: int) -> bool:
        """Whether nothing is left to train."""
        return bool(self.reason) or self.stopped or n_steps in self.scores

    def waits(self) -> int:
        """Number of validations since the best score."""
        return sum(step > self.best_step for step in self.scores)


def write_snapshot(path: Path, course: Course, model: nn.Module, optimizer: torch.optim.Optimizer, best: State) -> None:
    """Write a snapshot, whole or not at all."""
    tensors = {f"now/{name}": value for name, value in copied(model).items()} | moments_of(model, optimizer)
    tensors |= {f"best/{name}": value for name, value in best.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as written:
        save_file(tensors, written, {"format": FORMAT, "course": json.dumps(asdict(course))})


def read_course(path: Path) -> Course | None:
    """Read the course from a snapshot; None if there is no snapshot.

    Raises:
        StudyError: The file is not a snapshot.
    """
    if not path.exists():
        return None
    return _read(path, tensors=False)[0]


def read_best(path: Path) -> State:
    """Read the best parameters from a snapshot.

    Raises:
        StudyError: The file is not a snapshot.
    """
    return part(_read(path)[1], "best")


def restore(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[Course, State]:
    """Restore a model and its optimizer from a snapshot.

    Returns:
        The course, and the best parameters.

    Raises:
        StudyError: The file is not a snapshot, or belongs to another architecture.
    """
    course, tensors = _read(path)
    put(model, part(tensors, "now"))
    put_moments(model, optimizer, tensors)
    return course, part(tensors, "best")


def _read(path: Path, tensors: bool = True) -> tuple[Course, State]:
    try:
        with safe_open(path, framework="pt") as file:
            facts = file.metadata() or {}
            if facts.get("format") != FORMAT:
                raise StudyError(f"{path}: is not a snapshot of a training; start over with --overwrite")
            course: dict[str, Any] = json.loads(facts["course"])
            values = {name: file.get_tensor(name) for name in file.keys()} if tensors else {}  # noqa: SIM118  # not a dict
        course["scores"] = {int(step): score for step, score in course["scores"].items()}
        return Course(**course), values
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise StudyError(f"{path}: is damaged ({one_line(error, 120)}); start over with --overwrite") from error
