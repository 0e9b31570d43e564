"""Options of `peftsearch subspace`, and the checks that need neither model nor data."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Annotated

from peftsearch.backbone.named import check_machine, check_model
from peftsearch.errors import ConfigError
from peftsearch.methods.prompt import MAX_LENGTH
from peftsearch.options import MAX_SEED, MachineOptions, ModelOptions, OptionGroup, TaskOptions, group
from peftsearch.tasks import EMBEDDED, check_task, names_of


@dataclass(frozen=True, kw_only=True, slots=True)
class SubspaceOptions(OptionGroup):
    """Options of `peftsearch subspace`."""

    output: Path
    """File to write: subspace.safetensors."""
    overwrite: bool = False
    """Replace the output."""
    tasks: str | None = None
    """Source tasks: embedded tasks, hub data sets or dataset folders, separated by commas (default: all embedded)."""
    seeds: int = 4
    """Number of source prompts of each task, each on data of another seed."""
    seed: int = 0
    """First seed of the data."""
    examples: int = 500
    """Maximum number of training examples of a source prompt."""
    length: int = 8
    """Tokens of a prompt."""
    dimensions: int | None = None
    """Directions to keep, by falling variance (default: all, one fewer than source prompts)."""
    steps: int = 200
    """Optimizer steps of a source prompt."""
    learning_rate: float | None = None
    """Base learning rate, which the method scales (default: 0.005)."""
    model: Annotated[ModelOptions, group("Model (default: the embedded MiniLM-L6)")] = field(
        default_factory=ModelOptions
    )
    machine: Annotated[MachineOptions, group("Machine")] = field(default_factory=MachineOptions)

    @property
    def sources(self) -> tuple[TaskOptions, ...]:
        """The data of each task."""
        names = names_of(TaskOptions(name=",".join(EMBEDDED) if self.tasks is None else self.tasks))
        return tuple(TaskOptions(name=name, max_train=self.examples) for name in names)


def check_subspace_options(options: SubspaceOptions) -> None:
    """Check what can be checked before anything is loaded.

    Raises:
        ConfigError: An option is out of its range, or the output cannot be written.
        TaskError: There is no such task.
    """
    for name, most in (("seeds", 1000), ("examples", None), ("length", MAX_LENGTH), ("steps", None)):
        value = getattr(options, name)
        if value < 1 or (most is not None and value > most):
            allowed = "at least 1" if most is None else f"from 1 to {most}"
            raise ConfigError(f"--{name} must be {allowed}, got {value}")
    if not 0 <= options.seed <= MAX_SEED - options.seeds:
        raise ConfigError(f"--seed must be from 0 to {MAX_SEED - options.seeds}, got {options.seed}")
    if options.learning_rate is not None and not 0 < options.learning_rate < inf:
        raise ConfigError(f"--learning-rate must be above 0, got {options.learning_rate:g}")
    sources = options.sources
    for source in sources:
        check_task(source)
    n_directions = len(sources) * options.seeds - 1
    if n_directions < 1:
        raise ConfigError("one source prompt spans no subspace; give more --tasks or --seeds")
    if options.dimensions is not None and not 1 <= options.dimensions <= n_directions:
        raise ConfigError(
            f"--dimensions must be from 1 to {n_directions}, one fewer than source prompts, got {options.dimensions}; "
            "give more --tasks or --seeds"
        )
    check_machine(options.machine)
    check_model(options.model)
    output = options.output
    if output.is_dir() or not output.parent.is_dir():
        what = "is a folder; give a file" if output.is_dir() else f"no such folder as {output.parent}; make it first"
        raise ConfigError(f"--output {output}: {what}")
    if output.exists() and not options.overwrite:
        raise ConfigError(f"--output {output}: exists; add --overwrite to replace it, or name another")
