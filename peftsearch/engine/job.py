"""What an engine is asked to do, and what it gives back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from peftsearch.design.architecture import Architecture
from peftsearch.design.references import Reference


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One training of one architecture, or of weights of the model itself."""

    architecture: Architecture | Reference
    """What goes in; a reference trains the model's own weights in its place."""
    learning_rate: float
    """Base rate, before the methods' scales."""
    steps: int
    """Optimizer steps, on each task."""
    evaluations: int = 1
    """Validations, evenly spread, the last one at the end."""
    seed: int = 0
    """Seeds the new parameters, the head, the order of the data and dropout."""
    keep_state: bool = False
    """Whether the outcome holds the trained parameters."""
    measure: bool = True
    """Whether the architecture's costs are measured after the training, which changes nothing else; not those of a
    reference."""
    test: bool = False
    """Whether the outcome holds the score on the test split: of a reference, whose weights, as many as the model's, are
    kept by nobody."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What came of a job."""

    score: float
    """Validation score at the end; the mean over the tasks."""
    task_scores: tuple[float, ...]
    """Validation score of each task."""
    right: tuple[Sequence[float], ...]
    """For each task which validation examples are predicted right, or the score of each of a generation; empty for
    metrics that are no mean over them."""
    n_params: int
    """Trainable parameters, the head apart."""
    n_head: int
    """Trainable parameters of the head; of the largest where there are several tasks."""
    loss: float
    """Mean training loss of the last tenth of the steps, averaged over the tasks."""
    train_s: float
    """Seconds in training steps, of all tasks."""
    wall_s: float
    """Seconds in all."""
    measures: dict[str, float] = field(default_factory=dict)
    """What the architecture costs; see `Meter.measure`. Empty where the job did not ask."""
    states: tuple[bytes, ...] = ()
    """The trained parameters of each task in safetensors' format, where the job asked for them."""
    test_scores: tuple[float, ...] = ()
    """Score of each task on its test split, where the job asked for it; tasks without one are left out."""
