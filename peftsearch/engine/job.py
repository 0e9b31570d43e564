"""Jobs for an engine, and their outcomes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from peftsearch.design.architecture import Architecture
from peftsearch.design.references import Reference


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One training of an architecture, or of the model's own weights."""

    architecture: Architecture | Reference
    """The architecture to inject; a reference trains the model's own weights instead."""
    learning_rate: float
    """Base learning rate, before the methods' scales."""
    steps: int
    """Optimizer steps per task."""
    evaluations: int = 1
    """Validations per task, evenly spread, the last at the end."""
    seed: int = 0
    """Seed of the new parameters, the head, the order of the data and dropout."""
    keep_state: bool = False
    """Whether the outcome holds the trained parameters."""
    measure: bool = True
    """Whether to measure the architecture's costs after the training, which has no other effect."""
    test: bool = False
    """Whether to score the test split too, for references, whose weights are too many to keep until later."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """The result of a job."""

    score: float
    """Validation score at the end, averaged over the tasks."""
    task_scores: tuple[float, ...]
    """Validation score of each task."""
    right: tuple[Sequence[float], ...]
    """For each task, which validation examples are predicted right (for generation, the score of each example); empty
    for metrics that are not a mean over examples."""
    n_params: int
    """Trainable parameters, excluding the head."""
    n_head: int
    """Trainable parameters of the head, or of the largest head if there are several tasks."""
    loss: float
    """Mean training loss of the last tenth of the steps, averaged over the tasks."""
    train_s: float
    """Seconds in training steps, over all tasks."""
    wall_s: float
    """Total seconds."""
    measures: dict[str, float] = field(default_factory=dict)
    """Costs of the architecture, see `Meter.measure`; empty if the job did not ask for them."""
    states: tuple[bytes, ...] = ()
    """Trained parameters of each task in safetensors' format, if the job asked for them."""
    test_scores: tuple[float, ...] = ()
    """Test scores of the tasks with a test split, if the job asked for them."""
