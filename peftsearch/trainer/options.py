"""Options of train, evaluate and predict, and the checks that need neither model nor data."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from peftsearch.backbone.named import check_machine, check_model
from peftsearch.backbone.packing import PLAIN, check_quantisation
from peftsearch.design.references import FULL, is_in_place
from peftsearch.errors import ConfigError, unknown_name
from peftsearch.exporter.hub import check_repository
from peftsearch.methods import METHODS, base_name, get_method
from peftsearch.options import (
    HYPHEN,
    MAX_SEED,
    ColumnOptions,
    DecodingOptions,
    InputColumns,
    MachineOptions,
    ModelOptions,
    OptionGroup,
    TaskOptions,
    TrainingOptions,
    TunedModelOptions,
    group,
)
from peftsearch.tasks import check_task
from peftsearch.trainer.tracking import check_trackers

SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
"""Formats of predictions."""
HEAD = "head"
"""Name of training the head alone."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainOptions(OptionGroup):
    """Options of `peftsearch train`; None means the run's value."""

    best: Annotated[Path | None, Parameter(parse=False)] = None
    """`best.yaml` of a run, or its folder; None trains a reference of `method`."""
    output: Path
    """Folder of the result."""
    design: str | None = None
    """A confirmed design of the run other than its pick: 'trial 14', lora."""
    overwrite: bool = False
    """Replace a training in the folder."""
    resume: bool = False
    """Continue an unfinished training in the folder."""
    method: str | None = None
    """Train a reference instead: full, top-2, head, or one method on all blocks, such as lora."""
    budget: Annotated[str | None, HYPHEN] = None
    """Budget of a method, or of the design on another model: 0.1%, 22.7k (default: the run's)."""
    epochs: float | None = None
    """Passes over the training examples (default: 3)."""
    steps: int | None = None
    """Optimizer steps, instead of epochs."""
    seeds: int = 1
    """Number of trainings."""
    seed: int = 0
    """Seed of the first training."""
    eval_every: int | None = None
    """Steps between validations (default: a tenth of all)."""
    early_stopping: int | None = None
    """Validations without a better score after which a training ends (default: none)."""
    quantize: str | None = None
    """Keep the frozen weights packed: nf4 (QLoRA), int8 or none (default: the run's)."""
    track: str | None = None
    """Log losses and scores: tensorboard, wandb, mlflow, or others of accelerate; separate several by commas."""
    push_to_hub: str | None = None
    """Upload the folder to this repository of the hub at the end: ORG/NAME."""
    model: Annotated[TunedModelOptions, group("Model (default: the run's)")] = field(default_factory=TunedModelOptions)
    task: Annotated[TaskOptions, group("Task (default: the run's)")] = field(default_factory=TaskOptions)
    training: Annotated[TrainingOptions, group("Training (default: the run's)")] = field(
        default_factory=TrainingOptions
    )
    machine: Annotated[MachineOptions, group("Machine")] = field(default_factory=MachineOptions)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainedOptions(OptionGroup):
    """How a finished training is loaded."""

    folder: Annotated[Path, Parameter(parse=False)] = Path()
    """The `--output` of `peftsearch train`."""
    batch_size: int | None = None
    """Examples per forward pass (default: twice the training's)."""
    model: Annotated[ModelOptions, group("Model (default: the one that was trained)")] = field(
        default_factory=ModelOptions
    )
    columns: Annotated[InputColumns, group("Columns (default: those of the training)")] = field(
        default_factory=InputColumns
    )
    decoding: Annotated[DecodingOptions, group("Decoding, for generation")] = field(default_factory=DecodingOptions)
    machine: Annotated[MachineOptions, group("Machine")] = field(default_factory=MachineOptions)


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluateOptions(TrainedOptions):
    """Options of `peftsearch evaluate`."""

    columns: Annotated[ColumnOptions, group("Columns (default: those of the training)")] = field(
        default_factory=ColumnOptions
    )
    task: str | None = None
    """Embedded task or hub data set to evaluate on (default: the training's)."""
    test: Path | None = None
    """Labelled examples to evaluate on: CSV, TSV, JSONL or Parquet; for images a folder with one folder per class."""
    split: Literal["validation", "test"] | None = None
    """Split of the task (default: test, where there is one)."""
    metric: str | None = None
    """Metric (default: the training's)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PredictOptions(TrainedOptions):
    """Options of `peftsearch predict`."""

    input: Path
    """Rows to predict: CSV, TSV, JSONL or Parquet; or a folder of images."""
    output: Path
    """File to write: CSV, TSV, JSONL or Parquet."""
    overwrite: bool = False
    """Replace the output."""


def check_train_options(options: TrainOptions) -> None:
    """Check what can be checked before anything is loaded.

    Raises:
        ConfigError: An option is out of its range, or contradicts another.
    """
    if options.best is None and options.method is None:
        raise ConfigError(
            "train needs the best.yaml of a run; or --method full, or --method lora --budget 0.1%, with --model and "
            "--task"
        )
    in_place = is_in_place(options.method)
    own = options.method is not None and not in_place and options.method != HEAD
    if own and base_name(str(options.method)) not in METHODS:
        raise ConfigError(unknown_name("method", str(options.method), (*METHODS, FULL, "top-1", "top-2", HEAD)))
    if own:
        get_method(str(options.method))  # raises for unknown targets of a variant
    if (in_place or options.method == HEAD) and options.budget is not None:
        raise ConfigError(f"--budget: --method {options.method} has no budget; leave one of them out")
    if options.best is None and options.budget is None and own:
        raise ConfigError(
            f"--method {options.method} needs --budget, such as --budget 0.1%; or a best.yaml, whose budget it takes"
        )
    if (
        options.best is not None
        and options.method is None
        and options.budget is not None
        and options.model.name is None
    ):
        raise ConfigError("--budget: best.yaml has its sizes; give --budget with --model or --method")
    if options.design is not None and (options.best is None or options.method is not None):
        raise ConfigError("--design: is one of a run; give its best.yaml, and no --method")
    _check_packing(options)
    check_machine(options.machine)
    check_model(options.model)
    _check_data(options.task)
    if options.overwrite and options.resume:
        raise ConfigError("--overwrite starts over and --resume continues; give one of them")
    if options.epochs is not None and options.steps is not None:
        raise ConfigError("--epochs and --steps both say how long to train; give one of them")
    if options.epochs is not None and not 0 < options.epochs < inf:
        raise ConfigError(f"--epochs must be above 0, got {options.epochs:g}")
    check_trackers(options.track)
    check_repository(options.push_to_hub)
    for name in ("steps", "seeds", "eval_every", "early_stopping"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise ConfigError(f"--{name.replace('_', '-')} must be at least 1, got {value}")
    if not 0 <= options.seed <= MAX_SEED - options.seeds:
        raise ConfigError(f"--seed must be from 0 to {MAX_SEED - options.seeds}, got {options.seed}")


def _check_data(task: TaskOptions) -> None:
    """Check what the options show of the data; the rest may come from the run."""
    if task.name is not None or task.train is not None:
        check_task(task)


def _check_packing(options: TrainOptions) -> None:
    if options.quantize in (None, PLAIN):
        return
    if is_in_place(options.method):
        raise ConfigError(
            f"--quantize {options.quantize}: --method {options.method} trains the weights themselves, and packed ones "
            "cannot be trained; leave one of them out"
        )
    check_quantisation(options.quantize)


def check_predict_options(options: PredictOptions) -> None:
    """Check that the output can be written.

    Raises:
        ConfigError: It is in no known format, is the input, or exists.
    """
    output, source = options.output, options.input
    if output.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"--output {output}: unknown suffix {output.suffix!r}; give one of {', '.join(SUFFIXES)}")
    if output.is_dir():
        raise ConfigError(f"--output {output}: is a folder; give a file")
    if not output.parent.is_dir():
        raise ConfigError(f"--output {output}: no such folder as {output.parent}; make it first")
    if output.exists() and source.exists() and output.samefile(source):
        raise ConfigError(f"--output {output}: is the input itself; name another file")
    if output.exists() and not options.overwrite:
        raise ConfigError(f"--output {output}: exists; add --overwrite to replace it, or name another")
