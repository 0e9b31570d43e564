"""Options of `peftsearch run`, and the checks that need neither model nor data."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields, replace
from math import inf
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from peftsearch.backbone.named import check_machine, check_model
from peftsearch.backbone.packing import check_quantisation
from peftsearch.design.budget import check_budget
from peftsearch.design.references import parse_references
from peftsearch.design.space import DesignSpace, load_space
from peftsearch.engine.job import Select
from peftsearch.engine.settings import RANDOM_HEAD_RATE, TrainingSettings
from peftsearch.errors import BudgetError, ConfigError, StudyError, one_line, unknown_name
from peftsearch.files import from_plain, to_plain
from peftsearch.methods import get_method
from peftsearch.options import (
    AUTO,
    HYPHEN,
    MAX_SEED,
    MachineOptions,
    OptionGroup,
    TaskOptions,
    TrainingOptions,
    TunedModelOptions,
    given,
    group,
    lasting,
)
from peftsearch.samplers import require_objectives
from peftsearch.samplers.strategy import Strategy, load_strategy
from peftsearch.searcher.ray.address import check_address
from peftsearch.study.objectives import Constraints, Objective, parse_constraints, parse_objectives
from peftsearch.tasks import check_task, names_of
from peftsearch.trainer.tracking import check_trackers

ENGINES = ("local", "ray")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._%-]{0,99}")


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchOptions(OptionGroup):
    """How to search the space and confirm the best designs."""

    space: str = "hybrid"
    """Search space: a name (`list spaces`) or a YAML file."""
    strategy: str = "race"
    """Strategy: a name (`list strategies`) or a YAML file."""
    trials: int | None = None
    """Designs to train, excluding baselines and confirmation (default: the strategy's)."""
    patience: int | None = None
    """Trials without a better one after which the search ends (default: the strategy's, or none)."""
    epochs: float | None = None
    """Length of a training in passes over the data (default: 3, but 150 to 600 steps)."""
    steps: int | None = None
    """Length of a training in optimizer steps, instead of --epochs."""
    time: str | None = None
    """Time for the whole run, such as 30m or 2h: sets the length of a training, and ends the confirmation in time."""
    untimed: Annotated[bool, Parameter(show=False)] = False
    """Whether `--time` no longer ends the confirmation: an extension without a time of its own."""
    search_steps: int | None = None
    """Step at which a trial pauses and is ranked (default: the strategy's share of the length)."""
    confirm_steps: Annotated[int | None, Parameter(show=False)] = None
    """Length of the trainings of the confirmation, where `extend` made them longer than those of the search."""
    select: Select | None = None
    """What ranks trials: loss (on validation) or metric (default: loss; metric for several objectives)."""
    seeds: int | None = None
    """Most trainings per confirmed design (default: the strategy's)."""
    margin: float = 0.5
    """Points of the score within which two designs count as equally good."""
    prefer: Literal["best", "small"] = "best"
    """Pick: best (the best mean) or small (the cheapest that is not inferior to the best baseline)."""
    confirm_baselines: int | None = None
    """Baselines to confirm, best first (default: the strategy's)."""
    deploy: Literal["any", "peft", "merged"] = "any"
    """Search only designs that an adapter of HF peft holds (peft), or that merge into a plain checkpoint (merged)."""
    objective: str = "score"
    """Comma-separated objectives: score,params (`list objectives`)."""
    max_memory: str | None = None
    """Limit on the memory of a training step: 8GB, 512MiB."""
    max_latency_overhead: str | None = None
    """Limit on the latency overhead over the backbone, after merging: 10%."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineOptions(OptionGroup):
    """Where to run trials; a study may be started with one engine and resumed with another."""

    name: Annotated[str, Parameter(name="--engine")] = "local"
    """local, or ray for many GPUs."""
    workers: int | None = None
    """Processes that train side by side, without Ray (default: one a GPU, or as many as cores and memory allow)."""
    ray_address: str | None = None
    """Ray cluster: auto or HOST:PORT (default: start Ray here)."""
    cpus_per_trial: float = 1.0
    """CPU cores per trial under Ray."""
    gpus_per_trial: float | None = None
    """GPUs per trial under Ray, may be a fraction (default: 1 if available)."""
    max_concurrent: int | None = None
    """Concurrent trials under Ray (default: as many as fit)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyOptions(OptionGroup):
    """Where to keep the study."""

    name: str | None = None
    """Folder of the study under --runs (default: derived from the settings)."""
    runs: Path = Path("runs")
    """Folder of all studies."""
    storage: str = ""
    """Optuna storage URL (default: SQLite in the study's folder)."""
    track: str | None = None
    """Log every trial: tensorboard, wandb, mlflow, or others of accelerate; separate several by commas."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepOptions(OptionGroup):
    """Options that the studies of a sweep over budgets share; each study has its own budget."""

    count_head: bool = False
    """Count the task head in the budget."""
    quantize: str | None = None
    """Keep the frozen weights packed: nf4 (QLoRA) or int8."""
    seed: int = 0
    """Random seed of the whole run."""
    model: Annotated[TunedModelOptions, group("Model (default: the embedded MiniLM-L6)")] = field(
        default_factory=TunedModelOptions
    )
    task: Annotated[TaskOptions, group("Task (default: the embedded task, see list tasks)")] = field(
        default_factory=TaskOptions
    )
    search: Annotated[SearchOptions, group("Search")] = field(default_factory=SearchOptions)
    training: Annotated[TrainingOptions, group("Training")] = field(default_factory=TrainingOptions)
    machine: Annotated[MachineOptions, group("Machine")] = field(default_factory=MachineOptions)
    engine: Annotated[EngineOptions, group("Engine")] = field(default_factory=EngineOptions)
    study: Annotated[StudyOptions, group("Study")] = field(default_factory=StudyOptions)

    def at(self, budget: str) -> RunOptions:
        """The options of the study with one of the budgets."""
        return RunOptions(**{f.name: getattr(self, f.name) for f in fields(SweepOptions)}, budget=budget)


@dataclass(frozen=True, kw_only=True, slots=True)
class RunOptions(SweepOptions):
    """All options of `peftsearch run`."""

    budget: Annotated[str, HYPHEN] = ""
    """Trainable parameters, excluding the task head: 0.1%, 22_700, 22.7k, 1M."""
    baselines: str | None = None
    """Reference trainings outside the budget: full, top-2 (the last two blocks)."""


def strategy_of(options: SearchOptions) -> Strategy:
    """Load the strategy, with the numbers that the options override."""
    return with_numbers(load_strategy(options.strategy), options)


def with_numbers(strategy: Strategy, options: SearchOptions) -> Strategy:
    """The strategy with the numbers that the options override."""
    confirm = strategy.confirm
    if options.seeds is not None:
        most = _at_least_one("--seeds", options.seeds)
        confirm = replace(confirm, looks=(*(n for n in confirm.looks if n < most), most))
    if options.confirm_baselines is not None:
        confirm = replace(confirm, baselines=_at_least_one("--confirm-baselines", options.confirm_baselines))
    trials = strategy.trials if options.trials is None else _at_least_one("--trials", options.trials)
    patience = strategy.patience if options.patience is None else _at_least_one("--patience", options.patience)
    return replace(strategy, trials=trials, patience=patience, confirm=confirm)


def training_of(options: TrainingOptions) -> TrainingSettings:
    """Make training settings, with the numbers that the options override."""
    own = given(options, *(f.name for f in fields(TrainingOptions)))
    if own.get("max_length") == AUTO:
        del own["max_length"]  # follows from the data
    if own.get("head") == "random":
        own.setdefault("head_learning_rate", RANDOM_HEAD_RATE)
    return TrainingSettings.from_dict(own, "options")


@dataclass(frozen=True, kw_only=True, slots=True)
class Choices:
    """The parsed options, checked without a model, data or torch."""

    strategy: Strategy
    space: DesignSpace
    """The space, not yet bound to a backbone."""
    training: TrainingSettings
    objectives: tuple[Objective, ...]
    constraints: Constraints
    select: Select
    """What ranks the trials of the search."""


def read_choices(options: RunOptions) -> Choices:
    """Check everything that the options alone show, and read the files that they name.

    Raises:
        BudgetError: The budget is missing or cannot be read.
        ConfigError: An option is out of its range, or names something that does not exist.
        MethodError: The space names an unknown method.
    """
    check_budget(options.budget)
    _check_ranges(options)
    _check_inputs(options)
    strategy = strategy_of(options.search)
    space = load_space(options.search.space)
    for method in getattr(space, "methods", ()):
        get_method(method)  # raises for unknown methods and suggests the nearest name
    objectives = parse_objectives(options.search.objective)
    require_objectives(strategy.name, strategy.sampler, len(objectives))
    return Choices(
        strategy=strategy,
        space=space,
        training=training_of(options.training),
        objectives=objectives,
        constraints=parse_constraints(options.search.max_memory, options.search.max_latency_overhead),
        select=options.search.select or ("loss" if len(objectives) == 1 else "metric"),
    )


def _check_inputs(options: RunOptions) -> None:
    """Check the names of model, data, machine and storage, and that the files exist."""
    check_machine(options.machine)
    for name in names_of(options.task):
        check_task(replace(options.task, name=name))
    check_model(options.model)
    check_trackers(options.study.track)
    if options.study.storage:
        from peftsearch.study.storage import without_password  # imports Optuna

        without_password(options.study.storage)


def _check_ranges(options: RunOptions) -> None:
    """Check the ranges of options.

    Raises:
        ConfigError: An option is out of its range.
    """
    if not 0 <= options.seed <= MAX_SEED:
        raise ConfigError(f"--seed must be from 0 to {MAX_SEED}, got {options.seed}")
    name = options.study.name
    if name is not None and not _NAME.fullmatch(name):
        raise ConfigError(
            f"--name {one_line(name, 60)!r}: a name has 1 to 100 letters, digits, '.', '_', '-' or '%', and "
            "starts with a letter or digit; give folders with --runs"
        )
    check_quantisation(options.quantize)
    if parse_references(options.baselines) and options.quantize is not None:
        raise ConfigError(
            f"--baselines {options.baselines} trains the model's own weights, but --quantize {options.quantize} packs "
            "them so that they cannot be trained; leave one of them out"
        )
    _check_lengths(options.search)
    _check_engine(options.engine)
    if options.model.device_map is not None and (options.engine.name == "ray" or (options.engine.workers or 1) > 1):
        what = "--engine ray" if options.engine.name == "ray" else f"--workers {options.engine.workers}"
        raise ConfigError(f"--device-map gives all GPUs to one trial, and {what} shares them; leave one of them out")


def _check_lengths(options: SearchOptions) -> None:
    if options.steps is not None:
        _at_least_one("--steps", options.steps)
    if options.search_steps is not None:
        _at_least_one("--search-steps", options.search_steps)
    if options.epochs is not None and not 0 < options.epochs < inf:
        raise ConfigError(f"--epochs must be above 0, got {options.epochs:g}")
    if options.time is not None:
        parse_time(options.time)
        if options.steps is not None or options.epochs is not None:
            raise ConfigError("--time sets the length of a training: leave --steps and --epochs out")
    if not 0 < options.margin < 100:
        raise ConfigError(f"--margin must be above 0 and below 100 points, got {options.margin:g}")
    if options.epochs is not None and options.steps is not None:
        raise ConfigError("--epochs and --steps: both say how long a training is; leave one of them out")


def _check_engine(options: EngineOptions) -> None:
    if options.name not in ENGINES:
        raise ConfigError(unknown_name("engine", options.name, ENGINES))
    check_address(options.ray_address)
    if options.workers is not None:
        _at_least_one("--workers", options.workers)
        if options.name == "ray":
            raise ConfigError("--workers is for this machine alone; under Ray --max-concurrent limits the trials")
    if not 0 < options.cpus_per_trial < inf:
        raise ConfigError(f"--cpus-per-trial must be above 0, got {options.cpus_per_trial:g}")
    gpus = options.gpus_per_trial
    if gpus is not None and not (0 <= gpus < 1 or (gpus < inf and gpus == int(gpus))):
        raise ConfigError(f"--gpus-per-trial must be a fraction below 1 or a whole number, got {gpus:g}")
    if options.max_concurrent is not None:
        _at_least_one("--max-concurrent", options.max_concurrent)


def _at_least_one(option: str, value: int) -> int:
    if value < 1:
        raise ConfigError(f"{option} must be at least 1, got {value}")
    return value


_UNITS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}


def parse_time(text: str) -> float:
    """Read a time: `90s`, `30m`, `1.5h`, `2h30m`; returns seconds.

    Raises:
        ConfigError: The text is no time, or no time at all.
    """
    given = text.strip().lower()
    parts = re.findall(r"(\d+(?:\.\d+)?)\s*(min|[smhd])", given)
    if not parts or re.sub(r"(\d+(?:\.\d+)?)\s*(min|[smhd])|\s", "", given):
        raise ConfigError(f"--time {one_line(text, 40)!r} is not a time: write 90s, 30m, 1.5h or 2h30m")
    seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if not 0 < seconds < inf:
        raise ConfigError(f"--time {one_line(text, 40)!r} must be above 0")
    return seconds


def split_budgets(text: str) -> list[str]:
    """Split `--budgets` and check the form of each; their order needs the size of the backbone (`plan_sweep`).

    Raises:
        BudgetError: A budget cannot be read, or there are fewer than two.
    """
    budgets = [part.strip() for part in text.split(",")]
    if not all(budgets):
        raise BudgetError(f"--budgets {one_line(text, 60)!r} has an empty entry; write 0.05%,0.1%,0.5%")
    for budget in budgets:
        check_budget(budget, "--budgets")
    if len(budgets) < 2:
        raise BudgetError(f"--budgets {text!r} is one budget; a front needs at least two, such as 0.05%,0.1%,0.5%")
    return budgets


NOT_STORED = frozenset({"engine", "study", "baselines"})
"""Options that do not define a study: its place, its engine, and the references, which are stored with its trials."""


def read_options(folder: Path, storage: str = "") -> RunOptions:
    """Read the options that a study was started with.

    Args:
        folder: The study's folder; created from the storage if it does not exist.
        storage: The study's storage URL; empty for SQLite in the folder.

    Raises:
        StudyError: The study does not exist, or its options are not stored.
    """
    from peftsearch.study.folder import fetch_settings, read_settings  # imports Optuna, which is slow
    from peftsearch.study.settings import SETTINGS, SUBSPACE

    if storage and not (folder / SETTINGS).exists():
        fetch_settings(folder, storage)
    stored = read_settings(folder).options
    if not stored:
        raise StudyError(f"{folder}: its options are not stored; resume it with the command that started it")
    try:
        options = from_plain(RunOptions, stored, "options")
    except ConfigError as error:
        raise StudyError(f"{folder / SETTINGS}: {error}; resume it with the command that started it") from error
    if options.model.subspace is not None and (folder / SUBSPACE).is_file():  # the user's file may be gone
        options = replace(options, model=replace(options.model, subspace=folder / SUBSPACE))
    return replace(options, study=StudyOptions(name=folder.name, runs=folder.parent, storage=storage))


def stored_options(options: RunOptions) -> dict[str, Any]:
    """The options that a study keeps, as plain values; files of data by paths that hold in any directory."""
    subspace = options.model.subspace
    model = replace(options.model, subspace=None if subspace is None else subspace.resolve())
    kept = to_plain(replace(options, task=lasting(options.task), model=model))
    return {key: value for key, value in kept.items() if key not in NOT_STORED}
