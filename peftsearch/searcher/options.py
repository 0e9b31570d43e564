"""What `peftsearch run` can be asked for, and what is checked of it before anything is loaded."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path

from peftsearch.design.references import parse_references
from peftsearch.engine.inputs import InputOptions
from peftsearch.engine.settings import TrainingSettings
from peftsearch.errors import ConfigError, one_line, unknown_name
from peftsearch.samplers.strategy import Strategy, load_strategy

ENGINES = ("local", "ray")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._%-]{0,99}")


@dataclass(frozen=True, kw_only=True, slots=True)
class RunOptions(InputOptions):
    """What `peftsearch run` was asked for; one field for each option of the command line."""

    budget: str
    """`0.1%`, `22_700`, `22.7k`."""
    count_head: bool = False
    """Whether the budget includes the task head."""
    space: str = "s4"
    strategy: str = "s4"
    trials: int | None = None
    """Trained designs of the search; None takes the strategy's."""
    steps: int | None = None
    """Steps at full fidelity; None takes the strategy's."""
    search_steps: int | None = None
    """Steps of a trial of the search; None keeps the strategy's ratio to `steps`."""
    seeds: int | None = None
    """Seeds of the confirmation; None takes the strategy's."""
    confirm_baselines: int | None = None
    """Best baselines that are confirmed; None takes the strategy's."""
    baselines: str | None = None
    """References outside the budget with commas between: `full`, `top-2`; None trains none."""
    objective: str = "score"
    """Names of objectives with commas between."""
    max_memory: str | None = None
    """Most peak memory of a training step: `8GB`."""
    max_latency_overhead: str | None = None
    """Most latency over the backbone's: `10%`."""
    name: str | None = None
    """Folder of the study below `runs`; None makes one from the settings."""
    runs: Path = Path("runs")
    storage: str = ""
    """Optuna storage URL; empty for SQLite in the study's folder."""
    engine: str = "local"
    """Where trials run: `local` or `ray`; a study may be begun with one and resumed with another."""
    ray_address: str | None = None
    """A Ray cluster; None starts Ray on this machine."""
    cpus_per_trial: float = 1.0
    """Cores of a trial under Ray."""
    gpus_per_trial: float | None = None
    """GPUs of a trial under Ray, fractions too; None is one where there are any."""
    max_concurrent: int | None = None
    """Trials at a time under Ray; None is as many as the cluster holds."""


def strategy_of(options: RunOptions) -> Strategy:
    """The strategy with the options' own numbers put in."""
    strategy = load_strategy(options.strategy)
    search, confirm = strategy.search, strategy.confirm
    if options.steps is not None:
        ratio = search.steps / confirm.steps
        confirm = replace(confirm, steps=_at_least_one("--steps", options.steps))
        search = replace(search, steps=max(1, round(options.steps * ratio)))
    if options.search_steps is not None:
        search = replace(search, steps=_at_least_one("--search-steps", options.search_steps))
    if options.seeds is not None:
        confirm = replace(confirm, seeds=_at_least_one("--seeds", options.seeds))
    if options.confirm_baselines is not None:
        confirm = replace(confirm, baselines=_at_least_one("--confirm-baselines", options.confirm_baselines))
    trials = strategy.trials if options.trials is None else _at_least_one("--trials", options.trials)
    return replace(strategy, trials=trials, search=search, confirm=confirm)


def training_of(options: RunOptions) -> TrainingSettings:
    """Training settings with the options' own numbers put in."""
    given = {
        "learning_rate": options.learning_rate,
        "batch_size": options.batch_size,
        "max_length": options.max_length,
    }
    return TrainingSettings.from_dict({k: v for k, v in given.items() if v is not None}, "options")


def check_options(options: RunOptions) -> None:
    """Check what can be checked before anything is loaded.

    Raises:
        ConfigError: An option is out of its range.
    """
    if not 0 <= options.seed < 2**31:
        raise ConfigError(f"--seed must be from 0 to {2**31 - 1}, got {options.seed}")
    if options.name is not None and not _NAME.fullmatch(options.name):
        raise ConfigError(
            f"--name {one_line(options.name, 60)!r}: a name has 1 to 100 letters, digits, '.', '_', '-' or '%', and "
            "starts with none but a letter or digit; folders go to --runs"
        )
    if options.quantize is not None:
        from peftsearch.backbone.quantised import check_quantisation

        check_quantisation(options.quantize)
    if parse_references(options.baselines) and options.quantize is not None:
        raise ConfigError(
            f"--baselines {options.baselines} trains the weights themselves, and those of --quantize "
            f"{options.quantize} are packed and cannot be trained; leave one of them out"
        )
    _check_engine(options)


def _check_engine(options: RunOptions) -> None:
    if options.engine not in ENGINES:
        raise ConfigError(unknown_name("engine", options.engine, ENGINES))
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
