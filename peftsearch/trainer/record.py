"""The record of a training: what `training.yaml` holds, written and read in one typed form."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from peftsearch.engine.settings import TrainingSettings
from peftsearch.options import TaskOptions
from peftsearch.study.best import StoredModel
from peftsearch.study.stored_task import task_inputs
from peftsearch.tasks.kinds import Kind
from peftsearch.tasks.reading.columns import Columns

FORMAT = "peftsearch-training/2"


@dataclass(frozen=True, kw_only=True, slots=True)
class Data:
    """The source of a training's data."""

    options: TaskOptions
    seed: int
    """Decides the generated sentences and which examples are split off."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainedModel(StoredModel):
    """The backbone of a training."""

    n_head: int = 0
    """Parameters of the task head."""
    subspace: str | None = None
    """Digest of the subspace that prompts were tuned in; None without one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """Mean and scale of a regression's targets: the model's outputs are standardised by them."""

    mean: float
    scale: float


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainedTask:
    """The task of a training, as evaluating and predicting need it."""

    name: str
    kind: Kind
    labels: tuple[str, ...] = ()
    """Names of the classes by index."""
    metric: str
    source: str
    """Where the data came from, in words."""
    fingerprint: str
    columns: Columns | None = None
    """Columns of the training's tables; None for generated sentences."""
    pairs: bool = False
    """Whether examples are pairs of texts."""
    images: bool = False
    """Whether examples are images."""
    target: Target | None = None
    """None for other kinds than regression."""
    data: Data
    max_new: int | None = None
    """Most new tokens of a text, for generation."""
    template: str = ""
    """Of a generation: the text around prompts and completions, or `chat`."""
    notes: tuple[str, ...] = ()
    """What was guessed of the data, and what was left out or cut."""

    def head(self) -> dict[str, Any]:
        """What a saved head needs to know of its task."""
        known = {"name": self.name, "kind": self.kind, "labels": list(self.labels), "metric": self.metric}
        target = {} if self.target is None else {"mean": self.target.mean, "scale": self.target.scale}
        inputs = task_inputs(pairs=self.pairs, images=self.images, template=self.template, max_new=self.max_new)
        return known | inputs | target


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainedWith(TrainingSettings):
    """Settings of a training."""

    steps: int
    """Optimizer steps."""
    eval_every: int
    """Steps between validations."""
    early_stopping: int | None = None
    """Validations without a better score after which a training ends."""
    dtype: str = "fp32"
    processes: int = 1
    threads: int | None = field(default=None, compare=False)
    """CPU threads that it began with; None on other devices."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingRecord:
    """The content of `training.yaml`: equal records resume a training, others are refused."""

    format: Literal["peftsearch-training/2"] = "peftsearch-training/2"
    method: str
    """Name of the design or the reference."""
    model: TrainedModel
    task: TrainedTask
    n_params: int
    """Trainable parameters, excluding the task head."""
    n_changed: int
    """Parameters in which the result differs from the model, added ones included."""
    budget: str | None = None
    design: dict[str, Any] | None = None
    """The design, as `Design.to_dict` gives it; None for references."""
    architecture: dict[str, Any] | None = None
    """The architecture with the label of every size; None for references."""
    training: TrainedWith
    seed: int
    """The first seed."""
    seeds: int
    """Number of trainings."""
