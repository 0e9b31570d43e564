"""Turn user options into a validated `Setup`; nothing is written to disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftsearch.backbone.anatomy import Backbone
from peftsearch.design.baselines import Baseline, usable_methods
from peftsearch.design.budget import Budget, parse_budget
from peftsearch.design.feasibility import require_a_fit
from peftsearch.design.fitting import fit
from peftsearch.design.memory import MemoryLimit
from peftsearch.design.references import Reference, make_reference, notes_on, parse_references
from peftsearch.design.space import DesignSpace
from peftsearch.design.text import space_notes
from peftsearch.engine.inputs import encode_task, load_model, memory_notes, settle_length
from peftsearch.engine.job import Select
from peftsearch.engine.settings import TrainingSettings
from peftsearch.errors import BudgetError, ConfigError, StudyError
from peftsearch.files import from_plain
from peftsearch.options import AUTO, MachineOptions
from peftsearch.samplers import SamplerContext, make_sampler
from peftsearch.samplers.pruners import make_pruner
from peftsearch.samplers.strategy import Strategy
from peftsearch.searcher.binding import BUDGET_SHARES, bound_space, check_model, deployable_baselines, feasible_designs
from peftsearch.searcher.lengths import Lengths, choose_lengths
from peftsearch.searcher.options import RunOptions, SearchOptions, read_choices, with_numbers
from peftsearch.searcher.settings import study_settings
from peftsearch.study.objectives import Constraints, Objective
from peftsearch.study.settings import StudySettings

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler

    from peftsearch.backbone.load import LoadedBackbone
    from peftsearch.tasks.encoding.encoded import EncodedTask
    from peftsearch.tasks.suite import Suite


@dataclass(frozen=True, kw_only=True, slots=True)
class Setup:
    """Everything that a search needs, loaded and checked."""

    options: RunOptions
    suite: Suite
    encoded: tuple[EncodedTask, ...]
    """Encoded data of each task of the suite."""
    loaded: LoadedBackbone
    budget: Budget
    """Budget of the methods; the head's parameters are already deducted if `count_head` is set."""
    space: DesignSpace
    strategy: Strategy
    training: TrainingSettings
    lengths: Lengths
    select: Select
    """What ranks the trials of the search."""
    sampler: BaseSampler
    context: SamplerContext
    pruner: BasePruner
    device: Any
    autocast: Any
    path: Path
    """Folder of the study."""
    objectives: tuple[Objective, ...]
    """Objectives, in the order of a trial's values."""
    constraints: Constraints
    """Limits on a trial's measures."""
    memory: MemoryLimit | None
    """Memory limit to check before a design is trained; None without a limit."""
    baselines: tuple[Baseline, ...]
    """What an expert would try, as far as it can be deployed as the user wants."""
    references: tuple[Reference, ...]
    """Trainings of the model's own weights, for comparison."""
    settings: StudySettings
    """Settings of the study: equal settings resume it, different ones are refused."""
    notes: tuple[str, ...] = ()
    """Notes for the user before the search starts."""

    @property
    def fitting(self) -> tuple[Baseline, ...]:
        """The baselines that fit the budget."""
        return tuple(b for b in self.baselines if self.context.feasible(b.design))

    @property
    def backbone(self) -> Backbone:
        """The backbone's anatomy."""
        return self.loaded.backbone


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """The breadth and the length of a search that fit into a time."""

    strategy: Strategy
    steps: int
    """Length of a training."""


def prepare(options: RunOptions, *, like: Setup | None = None, plan: Plan | None = None) -> Setup:
    """Load and check everything; writes nothing.

    Args:
        options: The options of the run.
        like: A setup whose options differ only in budget and name, to reuse its loaded model and data.
        plan: What `--time` allows; None takes that of the study on disk, or else the strategy and the data.

    Raises:
        PeftSearchError: The options, the data, the model, the space or the budget are invalid.
    """
    from peftsearch.backbone.device import choose_device, suit_attention
    from peftsearch.backbone.load import n_head_params
    from peftsearch.engine.trainable import check_checkpointing

    choices = read_choices(options)
    space, training, objectives, constraints = choices.space, choices.training, choices.objectives, choices.constraints
    device = choose_device(options.machine.device)
    if like is None:
        check_model(options, space, len(objectives))
    suite = like.suite if like else suite_of(options)
    loaded, autocast, path = _model_as_begun(options, like, suite, device)
    threads = () if like else _settle_threads(options.machine, device, path)
    backbone = loaded.backbone
    suit_attention(loaded.model, device, autocast)
    plan = plan or _plan_begun(options.search, path, choices.strategy.name)
    # What the user gives holds against the plan, too, so that a change of it is seen.
    strategy = choices.strategy if plan is None else with_numbers(plan.strategy, options.search)
    deploy = options.search.deploy
    bound = bound_space(space, backbone, len(objectives), deploy)
    budget = _budget(options, loaded)
    memory = _memory_limit(constraints, loaded)
    references = tuple(make_reference(name, loaded) for name in parse_references(options.baselines))
    require_a_fit(bound, backbone, budget, memory)
    check_checkpointing(training, loaded)
    training, cut = settle_length(training, options.training.max_length or AUTO, loaded, suite.tasks)
    encoded = like.encoded if like else _encoded(options, suite, loaded, training)
    suite = replace(suite, tasks=tuple(each.task for each in encoded))
    context = SamplerContext(
        space=bound, n_trials=strategy.trials, seed=options.seed, backbone=backbone, budget=budget,
        feasible=feasible_designs(backbone, budget, memory, deploy),
        identity=lambda design: (fit(design, backbone, budget), design.learning_rate),
        sensitivity=lambda: _sensitivity(options, suite, loaded, encoded, training, device, autocast),
    )  # fmt: skip
    lengths = _lengths(options.search, suite, strategy, training, plan)
    choices = replace(choices, strategy=strategy)
    settings = study_settings(options, suite, backbone, budget, bound, choices, training, lengths, autocast, device)
    return Setup(
        options=options,
        suite=suite,
        encoded=encoded,
        loaded=loaded,
        budget=budget,
        space=bound,
        strategy=strategy,
        training=training,
        lengths=lengths,
        select=choices.select,
        sampler=make_sampler(strategy.sampler, context, dict(strategy.sampler_settings)),
        context=context,
        pruner=make_pruner(strategy, lengths.rungs[0]),
        device=device,
        autocast=autocast,
        path=path,
        objectives=objectives,
        constraints=constraints,
        memory=memory,
        baselines=deployable_baselines(bound, backbone, budget, deploy),
        references=references,
        settings=settings,
        notes=(
            *threads,
            *_data_notes(suite, cut, encoded),
            *space_notes(space, bound, "" if deploy == "any" else f"--deploy {deploy}"),
            *_objective_notes(strategy, objectives),
            *_memory_notes(memory, budget),
            *memory_notes(loaded, training, budget.n_params + n_head_params(loaded), suite.kind, device, autocast),
            *notes_on(references, limited=bool(constraints.to_dict())),
        ),
    )


def _encoded(
    options: RunOptions, suite: Suite, loaded: LoadedBackbone, training: TrainingSettings
) -> tuple[EncodedTask, ...]:
    return tuple(encode_task(loaded, t, training.max_length, options.task.bad_rows) for t in suite.tasks)


def _lengths(
    options: SearchOptions, suite: Suite, strategy: Strategy, training: TrainingSettings, plan: Plan | None
) -> Lengths:
    """The schedule of every training: what the options say, what the plan says, or what follows from the data."""
    return choose_lengths(
        strategy.search,
        n_train=[len(task.train) for task in suite.tasks],
        batch_size=training.batch_size,
        steps=options.steps if plan is None else plan.steps,
        epochs=options.epochs,
        search_steps=options.search_steps,
        confirm_steps=options.confirm_steps,
    )


def _begun_in(path: Path, options: MachineOptions, chosen: Any) -> Any:
    """The precision that a study on disk began in, so that it goes on in it elsewhere, unless the user names one.

    Args:
        path: The study's folder.
        options: The user's device and precision.
        chosen: The precision that suits this machine.
    """
    import torch

    stored = _stored(path) if options.dtype in (None, "auto") else None
    if stored is None:
        return chosen
    return None if stored.autocast == "none" else getattr(torch, stored.autocast)


def _settle_threads(options: MachineOptions, device: Any, path: Path) -> tuple[str, ...]:
    """Choose the threads, as many as a study on disk began with; gives notes."""
    from peftsearch.backbone.device import settle_threads

    stored = _stored(path)
    return settle_threads(options.threads, device, None if stored is None else stored.threads)


def _stored(path: Path) -> StudySettings | None:
    """The settings of a study on disk; None without one."""
    from peftsearch.study.folder import read_settings
    from peftsearch.study.settings import SETTINGS

    return read_settings(path) if (path / SETTINGS).is_file() else None


def _plan_begun(options: SearchOptions, path: Path, strategy: str) -> Plan | None:
    """The plan of a study on disk, where a time is to be kept."""
    return None if options.time is None else stored_plan(path, strategy)


def stored_plan(path: Path, strategy: str | None = None) -> Plan | None:
    """Breadth and length of a study on disk; None without one, or if it has another strategy.

    Args:
        path: The study's folder.
        strategy: Name of the strategy that the study must have; None takes any.
    """
    from peftsearch.study.settings import SETTINGS

    stored = _stored(path)
    if stored is None:
        return None
    known = from_plain(Strategy, stored.strategy, str(path / SETTINGS), StudyError)
    return Plan(strategy=known, steps=stored.steps) if strategy in (None, known.name) else None


def suite_of(options: RunOptions) -> Suite:
    """The tasks of a comma-separated list."""
    from peftsearch.tasks import names_of, resolve_task
    from peftsearch.tasks.reading.build import set_aside
    from peftsearch.tasks.suite import Suite

    task = options.task
    names = names_of(task)
    if len(names) > 1 and options.count_head:
        raise ConfigError("--count-head: several tasks have heads of different sizes; use it with a single task")
    tasks = (resolve_task(replace(task, name=name), options.seed) for name in names)
    return Suite(tasks=tuple(set_aside(each, options.seed) for each in tasks))


def _model_as_begun(
    options: RunOptions, like: Setup | None, suite: Suite, device: Any
) -> tuple[LoadedBackbone, Any, Path]:
    """The model, the precision that a study on disk began in or else the one that suits the device, and its folder."""
    from peftsearch.backbone.device import choose_dtype

    chosen = choose_dtype(device, options.machine.dtype)
    loaded = like.loaded if like else _load(options, suite, device, chosen)
    path = options.study.runs / (options.study.name or default_name(options, suite, loaded.backbone))
    begun = _begun_in(path, options.machine, chosen)
    if begun is chosen:
        return loaded, chosen, path
    del loaded  # two of them may be too many for the device
    return _load(options, suite, device, begun), begun, path


def _load(options: RunOptions, suite: Suite, device: Any, autocast: Any) -> LoadedBackbone:
    return load_model(
        options.model,
        suite.kind,
        suite.tasks[0].num_labels,
        device=device,
        quantize=options.quantize,
        compute_dtype=autocast,
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


def _memory_limit(constraints: Constraints, loaded: LoadedBackbone) -> MemoryLimit | None:
    from peftsearch.backbone.load import n_head_params
    from peftsearch.engine.measure import stored_bytes

    if constraints.max_memory_bytes is None:
        return None
    return MemoryLimit(
        limit=constraints.max_memory_bytes, model_bytes=stored_bytes(loaded.model), n_head=n_head_params(loaded)
    )


def _memory_notes(memory: MemoryLimit | None, budget: Budget) -> tuple[str, ...]:
    if memory is None or memory.room >= budget.n_params:
        return ()
    return (
        f"--max-memory leaves room for {memory.room:,} of the budget's {budget.n_params:,} parameters: larger designs "
        f"are not trained; give --budget {memory.room} to size designs for it",
    )


def _sensitivity(
    options: RunOptions,
    suite: Suite,
    loaded: LoadedBackbone,
    encoded: Sequence[EncodedTask],
    training: TrainingSettings,
    device: Any,
    autocast: Any,
) -> dict[tuple[str, int, str], float]:
    """Score all usable methods on all blocks by a few training batches of each task; means over the tasks."""
    from peftsearch.backbone.heads import make_heads, wearing
    from peftsearch.engine.saliency import N_BATCHES, measure
    from peftsearch.engine.scoring import Scorer
    from peftsearch.tasks.encoding.batches import batches

    heads = make_heads(loaded, [task.num_labels for task in suite.tasks])
    total: dict[tuple[str, int, str], float] = {}
    for task, data, head in zip(suite.tasks, encoded, heads, strict=True):
        with wearing(loaded.model, head):
            scores = measure(
                loaded,
                usable_methods(loaded.backbone),
                list(batches(data.train, training.batch_size, seed=options.seed, steps=N_BATCHES)),
                loss_of=Scorer(task, training).loss,
                seed=options.seed,
                device=device,
                autocast=autocast,
            )
        total = {place: total.get(place, 0.0) + score / len(suite.tasks) for place, score in scores.items()}
    return total


def _data_notes(suite: Suite, cut: Sequence[str], encoded: Sequence[EncodedTask]) -> tuple[str, ...]:
    return (*suite.notes, *cut, *(note for data in encoded for note in data.notes))


def _objective_notes(strategy: Strategy, objectives: tuple[Objective, ...]) -> tuple[str, ...]:
    if len(objectives) == 1:
        return ()
    shares = ", ".join(f"{100 * share:g}%" for share in BUDGET_SHARES)
    notes = [f"several objectives: designs may spend {shares} of the budget"]
    if strategy.pruner != "none":
        notes.append(f"several objectives: pruner {strategy.pruner} has no effect")
    return tuple(notes)


def default_name(options: RunOptions, suite: Suite, backbone: Backbone) -> str:
    """Derive a folder name from the settings that distinguish studies; equal commands give equal names."""
    parts = [
        backbone.name.rstrip("/").split("/")[-1],
        suite.name,
        options.budget,
        options.search.space,
        options.search.strategy,
    ]
    parts += [options.search.objective] if options.search.objective != "score" else []
    parts += [options.quantize] if options.quantize is not None else []
    text = "-".join([*(Path(p).stem if p.endswith((".yaml", ".yml")) else p for p in parts), f"seed{options.seed}"])
    safe = "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "_" for c in text.replace("%", "pct"))
    return safe.lstrip("-_.")[:100] or "run"
