"""What `peftsearch train` can be asked for, and what is checked of it before anything is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from pathlib import Path

from peftsearch.design.memory import PLAIN
from peftsearch.design.references import FULL, is_in_place
from peftsearch.engine.inputs import InputOptions
from peftsearch.errors import ConfigError, unknown_name
from peftsearch.methods import METHODS

MAX_SEED = 2**31 - 1
HEAD = "head"
"""Name of training the head alone."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainOptions(InputOptions):
    """What `peftsearch train` was asked for; one field for each option of the command line.

    `quantize` may also be `none`, which packs nothing; `batch_size` is over all processes.
    """

    best: Path | None = None
    """`best.yaml` of a run, or its folder; None trains a reference of `method`."""
    design: str | None = None
    """Another confirmed design of the run than its pick: `trial 14`, `lora`."""
    output: Path
    """Folder of the result."""
    overwrite: bool = False
    """Whether a finished or unfinished training in `output` is replaced."""
    resume: bool = False
    """Whether an unfinished training in `output` goes on."""
    method: str | None = None
    """Reference in place of the found design: one method on all blocks, `head`, `full`, or `top-2` blocks."""
    budget: str | None = None
    """Budget of a reference, or of the design on another model; None takes the run's."""
    epochs: float | None = None
    """Passes over the training split; None takes three."""
    steps: int | None = None
    """Optimizer steps, instead of epochs."""
    seeds: int = 1
    """Trainings, with the seeds from `seed` on."""
    eval_every: int | None = None
    """Steps between evaluations; None gives ten of them."""
    accumulate: int = 1
    """Parts that a process cuts its share of a batch into; the result is the same up to rounding."""
    gradient_checkpointing: bool = False
    """Whether blocks are computed again in the backward pass instead of kept."""


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
    if options.method is not None and not in_place and options.method not in {*METHODS, HEAD}:
        raise ConfigError(unknown_name("method", options.method, (*METHODS, FULL, "top-1", "top-2", HEAD)))
    if (in_place or options.method == HEAD) and options.budget is not None:
        raise ConfigError(f"--budget: --method {options.method} has no budget; leave one of them out")
    if options.best is None and options.budget is None and options.method in METHODS:
        raise ConfigError(
            f"--method {options.method} needs --budget, such as --budget 0.1%; or a best.yaml, whose budget it takes"
        )
    if options.best is not None and options.method is None and options.budget is not None and options.model is None:
        raise ConfigError("--budget: best.yaml has its sizes; give --budget with --model or --method")
    if options.design is not None and (options.best is None or options.method is not None):
        raise ConfigError("--design: is one of a run; give its best.yaml, and no --method")
    _check_packing(options)
    if options.overwrite and options.resume:
        raise ConfigError("--overwrite begins anew and --resume goes on; give one of them")
    if options.epochs is not None and options.steps is not None:
        raise ConfigError("--epochs and --steps both say how long to train; give one of them")
    if options.epochs is not None and not 0 < options.epochs < inf:
        raise ConfigError(f"--epochs must be above 0, got {options.epochs:g}")
    for name in ("steps", "seeds", "eval_every", "accumulate"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise ConfigError(f"--{name.replace('_', '-')} must be at least 1, got {value}")
    if not 0 <= options.seed <= MAX_SEED - options.seeds:
        raise ConfigError(f"--seed must be from 0 to {MAX_SEED - options.seeds}, got {options.seed}")


def _check_packing(options: TrainOptions) -> None:
    if options.quantize in (None, PLAIN):
        return
    if is_in_place(options.method):
        raise ConfigError(
            f"--quantize {options.quantize}: --method {options.method} trains the weights themselves, and packed ones "
            "cannot be trained; leave one of them out"
        )
    from peftsearch.backbone.quantised import check_quantisation

    check_quantisation(options.quantize)
