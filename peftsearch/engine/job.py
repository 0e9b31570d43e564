"""Jobs for an engine, and their outcomes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from peftsearch.design.architecture import Architecture
from peftsearch.design.references import Reference
from peftsearch.engine.evaluation import Evaluation

Select = Literal["loss", "metric"]
"""What ranks the trials of a search: the mean validation loss, or the metric."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One training of an architecture, or of the model's own weights, or a part of one."""

    architecture: Architecture | Reference
    """The architecture to inject; a reference trains the model's own weights instead."""
    learning_rate: float
    """Base learning rate, before the methods' scales."""
    steps: int
    """Optimizer steps of the whole schedule, per task; 0 scores the head that training would start from."""
    until: int | None = None
    """Step at which the training pauses; None trains to the end."""
    snapshot: bool = True
    """Whether a pause gives a snapshot, with which the training can go on."""
    paused: tuple[bytes, ...] = ()
    """Snapshots of each task, with which the training goes on; empty starts it."""
    evaluations: int = 1
    """Validations per task, evenly spread, the last at the end."""
    n_validation: int | None = None
    """Most validation examples of each task, the same ones for all jobs with this number; None takes all."""
    seed: int = 0
    """Seed of the new parameters, the order of the data and dropout."""
    keep_state: bool = False
    """Whether the outcome holds the trained parameters."""
    measure: bool = True
    """Whether to measure the architecture's costs after the training, which has no other effect."""
    test: bool = False
    """Whether to score the test split too."""
    retry: bool = False
    """Whether a training that diverges, or ends worse than it starts, is tried again at a lower rate."""
    select: Select = "loss"
    """What `Outcome.value` is made of."""

    @property
    def end(self) -> int:
        """The step at which the job ends."""
        return self.steps if self.until is None else self.until


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """The result of a job."""

    value: float
    """What ranks it, the higher the better: the negative validation loss or the score."""
    score: float | None
    """Validation score at the end, averaged over the tasks; None where a part of a training is not scored."""
    loss: float
    """Mean validation loss at the end, averaged over the tasks."""
    task_scores: tuple[float | None, ...]
    """Validation score of each task."""
    losses: tuple[Sequence[float], ...]
    """For each task, the loss of every validation example."""
    right: tuple[Sequence[float], ...]
    """For each task, which validation examples are predicted right (for generation, the score of each example); empty
    for metrics that are not a mean over examples."""
    n_params: int
    """Trainable parameters, excluding the head."""
    n_head: int
    """Trainable parameters of the head, or of the largest head if there are several tasks."""
    train_loss: float | None
    """Mean training loss of the last tenth of the steps, averaged over the tasks; None without a step."""
    train_s: float
    """Seconds in the job's training steps, over all tasks."""
    wall_s: float
    """Total seconds."""
    measures: dict[str, float] = field(default_factory=dict)
    """Costs of the architecture, see `Meter.measure`; empty if the job did not ask for them."""
    states: tuple[bytes, ...] = ()
    """Trained parameters of each task in safetensors' format, if the job asked for them."""
    paused: tuple[bytes, ...] = ()
    """Snapshots of each task, if the job ended before the schedule."""
    tests: tuple[Evaluation, ...] = ()
    """Evaluations on the test splits of the tasks that have one, if the job asked for them."""
    n_collapsed: int = 0
    """Number of trainings that collapsed and were tried again at a lower rate."""
