"""From what the user asked to all that a search needs, checked before anything is written."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass, replace
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from peftsearch.backbone.anatomy import Backbone
from peftsearch.baselines import usable_methods
from peftsearch.budget import Budget, parse_budget
from peftsearch.display import space_notes
from peftsearch.errors import BudgetError, ConfigError, one_line, unknown_name
from peftsearch.feasibility import feasibility, require_a_fit
from peftsearch.fitting import fit
from peftsearch.methods import get_method
from peftsearch.objectives import Constraints, Objective, parse_constraints, parse_objectives
from peftsearch.pruners import make_pruner
from peftsearch.samplers import SamplerContext, make_sampler, require_objectives
from peftsearch.space import DesignSpace, SearchSpace, load_space
from peftsearch.storage import without_password
from peftsearch.strategy import Strategy, load_strategy
from peftsearch.training import TrainingSettings

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler

    from peftsearch.backbone.load import LoadedBackbone
    from peftsearch.tasks.encode import EncodedTask
    from peftsearch.tasks.task import Task


ENGINES = ("local", "ray")
BUDGET_SHARES = (0.125, 0.25, 0.5, 1.0)
"""Shares of the budget that designs may spend where a search has several objectives: a front needs cheaper designs."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._%-]{0,99}")


@dataclass(frozen=True, kw_only=True, slots=True)
class RunOptions:
    """What `peftsearch run` was asked for; one field for each option of the command line."""

    budget: str
    """`0.1%`, `22_700`, `22.7k`."""
    count_head: bool = False
    """Whether the budget includes the task head."""
    model: str | None = None
    """Hub id or folder; None is the embedded MiniLM."""
    revision: str | None = None
    """Commit, tag or branch of a hub model."""
    trust_remote_code: bool = False
    """Whether code that a hub model brings may run."""
    anatomy: Path | None = None
    """YAML that describes an unknown backbone by hand."""
    task: str | None = None
    """Embedded task or hub data set; None with `train` files, else the default task."""
    train: Path | None = None
    validation: Path | None = None
    test: Path | None = None
    text_column: str | None = None
    pair_column: str | None = None
    label_column: str | None = None
    kind: Literal["classification", "regression"] | None = None
    """None guesses."""
    metric: str | None = None
    """Name of the score; None takes the task's own."""
    max_train: int | None = None
    """Most training examples; None takes all."""
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
    objective: str = "score"
    """Names of objectives with commas between."""
    max_memory: str | None = None
    """Most peak memory of a training step: `8GB`."""
    max_latency_overhead: str | None = None
    """Most latency over the backbone's: `10%`."""
    learning_rate: float | None = None
    batch_size: int | None = None
    max_length: int | None = None
    seed: int = 0
    device: str | None = None
    dtype: str | None = None
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Setup:
    """All that a search needs, loaded and checked."""

    options: RunOptions
    task: Task
    encoded: EncodedTask
    loaded: LoadedBackbone
    budget: Budget
    """What the methods may spend; without the head's share under `count_head`."""
    space: DesignSpace
    strategy: Strategy
    training: TrainingSettings
    sampler: BaseSampler
    context: SamplerContext
    pruner: BasePruner
    device: Any
    autocast: Any
    path: Path
    """Folder of the study."""
    objectives: tuple[Objective, ...]
    """What is optimised, in the order of a trial's values."""
    constraints: Constraints
    """What a trial's measures are held to."""
    settings: dict[str, Any]
    """What the study is about: equal settings resume it, others are refused."""
    notes: tuple[str, ...] = ()
    """What the user should know before the search starts."""

    @property
    def backbone(self) -> Backbone:
        """The backbone's anatomy."""
        return self.loaded.backbone


def prepare(options: RunOptions, *, like: Setup | None = None) -> Setup:
    """Load and check everything; writes nothing.

    Args:
        options: What to search.
        like: A setup whose options differ in the budget and the name alone: what it has loaded is not loaded again.

    Raises:
        PeftSearchError: What is wrong with the options, the data, the model, the space or the budget.
    """
    from peftsearch.backbone.device import choose_device, choose_dtype
    from peftsearch.tasks.encode import encode

    _check_plain_options(options)
    strategy = strategy_of(options)
    space = load_space(options.space)
    for method in getattr(space, "methods", ()):
        get_method(method)  # a misspelt one is said with the nearest name, before anything is loaded
    training = training_of(options)
    objectives = parse_objectives(options.objective)
    constraints = parse_constraints(options.max_memory, options.max_latency_overhead)
    require_objectives(strategy.name, strategy.sampler, len(objectives))
    parse_budget(options.budget, None)  # a budget that is no budget is said before anything is loaded
    device = choose_device(options.device)
    autocast = choose_dtype(device, options.dtype)
    task = like.task if like else _task(options)
    loaded = like.loaded if like else _load(options, task, device)
    backbone = loaded.backbone
    bound = space.bound_to(len(backbone.blocks), usable_methods(backbone))
    if len(objectives) > 1 and isinstance(bound, SearchSpace):
        bound = bound.with_budget_shares(BUDGET_SHARES)
    budget = _budget(options, loaded)
    feasible = feasibility(backbone, budget)
    require_a_fit(bound, backbone, budget)
    context = SamplerContext(
        space=bound,
        n_trials=strategy.trials,
        seed=options.seed,
        feasible=feasible,
        identity=lambda design: (fit(design, backbone, budget), design.learning_rate),
        backbone=backbone,
        budget=budget,
        sensitivity=lambda: _sensitivity(options, task, loaded, encoded, training, device, autocast),
    )
    training, cut = _within_positions(training, options, loaded)
    encoded = like.encoded if like else encode(task, loaded.tokenizer, training.max_length)
    settings = _settings(options, task, backbone, budget, bound, strategy, training, autocast) | {
        "objectives": [objective.name for objective in objectives],
        "constraints": constraints.to_dict(),
    }
    return Setup(
        options=options,
        task=task,
        encoded=encoded,
        loaded=loaded,
        budget=budget,
        space=bound,
        strategy=strategy,
        training=training,
        sampler=make_sampler(strategy.sampler, context, dict(strategy.sampler_settings)),
        context=context,
        pruner=make_pruner(strategy),
        device=device,
        autocast=autocast,
        path=options.runs / (options.name or default_name(options, task, backbone)),
        objectives=objectives,
        constraints=constraints,
        settings=settings,
        notes=(*task.notes, *cut, *encoded.notes, *space_notes(space, bound), *_objective_notes(strategy, objectives)),
    )


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


def _check_plain_options(options: RunOptions) -> None:
    if not 0 <= options.seed < 2**31:
        raise ConfigError(f"--seed must be from 0 to {2**31 - 1}, got {options.seed}")
    if options.name is not None and not _NAME.fullmatch(options.name):
        raise ConfigError(
            f"--name {one_line(options.name, 60)!r}: a name has 1 to 100 letters, digits, '.', '_', '-' or '%', and "
            "starts with none but a letter or digit; folders go to --runs"
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


def _task(options: RunOptions) -> Task:
    from peftsearch.tasks import resolve_task

    return resolve_task(
        options.task,
        train=options.train,
        validation=options.validation,
        test=options.test,
        text_column=options.text_column,
        pair_column=options.pair_column,
        label_column=options.label_column,
        kind=options.kind,
        metric=options.metric,
        max_train=options.max_train,
        seed=options.seed,
    )


def _load(options: RunOptions, task: Task, device: Any) -> LoadedBackbone:
    from peftsearch.backbone.load import load_backbone

    return load_backbone(
        options.model,
        num_labels=task.num_labels,
        problem_type="regression" if task.kind == "regression" else None,
        device=device,
        trust_remote_code=options.trust_remote_code,
        revision=options.revision,
        anatomy=options.anatomy,
    )


def _budget(options: RunOptions, loaded: LoadedBackbone) -> Budget:
    from peftsearch.backbone.load import n_head_params

    budget = parse_budget(options.budget, loaded.backbone.n_params)
    if not options.count_head:
        return budget
    n_head = n_head_params(loaded)
    if budget.n_params <= n_head:
        raise BudgetError(
            f"--budget {budget.text} ({budget.n_params:,} parameters) with --count-head: the head alone has {n_head:,}"
        )
    return replace(budget, n_params=budget.n_params - n_head)


def _settings(
    options: RunOptions,
    task: Task,
    backbone: Backbone,
    budget: Budget,
    space: DesignSpace,
    strategy: Strategy,
    training: TrainingSettings,
    autocast: Any,
) -> dict[str, Any]:
    return {
        "format": "peftsearch-study/1",
        "model": backbone.name,
        "revision": backbone.revision,
        "anatomy": _digest(backbone),
        "task": task.name,
        "task_source": task.source,
        "task_fingerprint": task.fingerprint,
        "metric": task.metric,
        "budget": budget.text,
        "budget_params": budget.n_params,
        "count_head": options.count_head,
        "space": space.name,
        "dimensions": {d.name: list(d.choices) for d in space.dimensions},
        "strategy": plain(asdict(strategy)),
        "training": plain(asdict(training)),
        "autocast": str(autocast).removeprefix("torch.") if autocast is not None else "none",
        "seed": options.seed,
        "storage": without_password(options.storage),
    }


def _sensitivity(
    options: RunOptions,
    task: Task,
    loaded: LoadedBackbone,
    encoded: EncodedTask,
    training: TrainingSettings,
    device: Any,
    autocast: Any,
) -> dict[tuple[str, int, str], float]:
    """Scores of all usable methods on all blocks, from a few training batches of the study's own settings."""
    from peftsearch.evaluate import Objective
    from peftsearch.sensitivity import N_BATCHES, measure
    from peftsearch.tasks.encode import batches

    return measure(
        loaded,
        usable_methods(loaded.backbone),
        list(batches(encoded.train, training.batch_size, seed=options.seed, steps=N_BATCHES)),
        loss_of=Objective(task).loss,
        seed=options.seed,
        device=device,
        autocast=autocast,
    )


def _within_positions(
    training: TrainingSettings, options: RunOptions, loaded: LoadedBackbone
) -> tuple[TrainingSettings, tuple[str, ...]]:
    """Hold the length of texts against the positions that the model has."""
    from peftsearch.backbone.load import max_positions

    limit = max_positions(loaded)
    if limit is None or training.max_length <= limit:
        return training, ()
    if options.max_length is not None:
        raise ConfigError(f"--max-length {options.max_length}: {loaded.backbone.name} has positions for {limit} tokens")
    return replace(training, max_length=limit), (f"texts are cut at {limit} tokens, for which the model has positions",)


def _objective_notes(strategy: Strategy, objectives: tuple[Objective, ...]) -> tuple[str, ...]:
    if len(objectives) == 1:
        return ()
    shares = ", ".join(f"{100 * share:g}%" for share in BUDGET_SHARES)
    notes = [f"several objectives: designs may spend {shares} of the budget"]
    if strategy.pruner != "none":
        notes.append(f"several objectives: pruner {strategy.pruner} does not act")
    return tuple(notes)


def _digest(backbone: Backbone) -> str:
    """Tells anatomies apart: the same model may be described by hand in several ways."""
    text = json.dumps(asdict(backbone)["stacks"], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def plain(value: Any) -> Any:
    """A value as YAML gives it back: tuples become lists."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def default_name(options: RunOptions, task: Task, backbone: Backbone) -> str:
    """A folder name from what distinguishes studies; equal commands give equal names."""
    parts = [backbone.name.rstrip("/").split("/")[-1], task.name, options.budget, options.space, options.strategy]
    parts += [options.objective] if options.objective != "score" else []
    text = "-".join([*(Path(p).stem if p.endswith((".yaml", ".yml")) else p for p in parts), f"seed{options.seed}"])
    safe = "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "_" for c in text.replace("%", "pct"))
    return safe.lstrip("-_.")[:100] or "run"
