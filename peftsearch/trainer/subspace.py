"""Learn a subspace of prompts: train a prompt on each of many tasks, and take their principal directions.

This is the first phase of intrinsic prompt tuning (arXiv 2110.07867, sec. 3), with a linear decoder; see
`peftsearch.methods.ipt`. All prompts start from the same words, so that the differences between them were learned.
Tasks with labels train a head beside the prompt, which is dropped.

Left out: the loss of the source tasks through the decoder.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from safetensors.torch import load

from peftsearch.backbone.device import choose_device, choose_dtype, settle_threads, suit_attention
from peftsearch.backbone.load import LoadedBackbone
from peftsearch.backbone.subspace import Directions, principal_directions, write_subspace
from peftsearch.design.architecture import Architecture, Placement
from peftsearch.engine.inputs import encode_task, load_model, settle_length
from peftsearch.engine.job import Job, Outcome
from peftsearch.engine.local import LocalEngine
from peftsearch.engine.settings import TrainingSettings
from peftsearch.errors import TaskError
from peftsearch.methods import get_method
from peftsearch.methods.support import require_methods
from peftsearch.options import AUTO
from peftsearch.tasks import resolve_task
from peftsearch.tasks.suite import Suite
from peftsearch.tasks.task import Task
from peftsearch.trainer.subspace_options import SubspaceOptions, check_subspace_options
from peftsearch.units import format_seconds, plural

START_SEED = 0
"""Seed of the words that every source prompt starts from, and of the order of the examples."""
N_VALIDATION = 200
"""Most validation examples that a source prompt is scored on."""


def learn_subspace(options: SubspaceOptions, say: Callable[[str], None]) -> Directions:
    """Train the prompts of all source tasks, and write their mean and their principal directions.

    Args:
        options: Tasks, sizes and the file to write.
        say: Receiver of lines of progress, one a source prompt.

    Raises:
        PeftSearchError: The options, the data or the model are invalid, or the file cannot be written.
        Diverged: The loss of a source task is no longer a number.
    """
    check_subspace_options(options)
    device = choose_device(options.machine.device)
    settle_threads(options.machine.threads, device)
    autocast = choose_dtype(device, options.machine.dtype)
    prompts: dict[str, torch.Tensor] = {}
    loaded: LoadedBackbone | None = None
    head: tuple[str, int] | None = None
    seen: set[str] = set()
    for source in options.sources:
        for seed in range(options.seed, options.seed + options.seeds):
            task = resolve_task(source, seed)
            if task.fingerprint in seen:
                say(f"{source.name}, seed {seed}: has the data of an earlier seed (fewer --examples draw others)")
                continue
            seen.add(task.fingerprint)
            if loaded is None or head != (task.kind, task.num_labels):
                head = task.kind, task.num_labels
                loaded = load_model(options.model, *head, device=device, compute_dtype=autocast)
                require_methods(["prompt"], loaded.backbone)
                suit_attention(loaded.model, device, autocast)
            name = f"{source.name}, seed {seed}"
            outcome = _train(loaded, task, options, device, autocast)
            prompts[name] = _prompt(outcome)
            say(f"{name}: {_told(task, outcome)}")
    assert loaded is not None, "the options name a task"
    _require_prompts(len(prompts), options.dimensions)
    directions = principal_directions(torch.stack([*prompts.values()]), options.dimensions)
    write_subspace(options.output, directions, loaded.backbone, [*prompts])
    n, (length, width) = plural(len(directions.basis), "direction"), directions.mean.shape
    say(f"{options.output}: {n} of {len(prompts)} prompts ({length} x {width}) on {loaded.backbone.name}")
    return directions


def _require_prompts(n: int, dimensions: int | None) -> None:
    """Refuse too few prompts of different data.

    Raises:
        TaskError: They span fewer directions than are asked for, or none.
    """
    if n - 1 < (dimensions or 1):
        raise TaskError(
            f"subspace: {plural(n, 'source prompt')} of different data span {plural(max(0, n - 1), 'direction')}; give "
            "more --tasks, or --examples below the rows of a task, so that its seeds differ"
        )


def _train(
    loaded: LoadedBackbone, task: Task, options: SubspaceOptions, device: torch.device, autocast: torch.dtype | None
) -> Outcome:
    """Train a prompt on a task."""
    rate = TrainingSettings().learning_rate if options.learning_rate is None else options.learning_rate
    training, _ = settle_length(replace(TrainingSettings(), learning_rate=rate), AUTO, loaded, [task])
    encoded = encode_task(loaded, task, training.max_length, None)
    engine = LocalEngine(loaded, Suite(tasks=(encoded.task,)), [encoded], training, device, autocast)
    first = loaded.backbone.blocks[0]
    n_params = get_method("prompt").count(first, options.length)
    prompt = Placement(stack=first.stack, block=first.index, method="prompt", size=options.length, n_params=n_params)
    return engine.run(
        Job(
            architecture=Architecture(placements=(prompt,)),
            learning_rate=rate,
            steps=options.steps,
            n_validation=N_VALIDATION,
            seed=START_SEED,
            keep_state=True,
            measure=False,
        )
    )


def _prompt(outcome: Outcome) -> torch.Tensor:
    """The trained prompt `(l, e)` of an outcome."""
    state: dict[str, torch.Tensor] = load(outcome.states[0])
    return next(value for name, value in state.items() if name.endswith("_prompt.embedding")).float()


def _told(task: Task, outcome: Outcome) -> str:
    score = "" if outcome.score is None else f"{task.metric} {outcome.score:.4f}, "
    return f"{score}loss {outcome.loss:.4f}, {len(task.train):,} examples, {format_seconds(outcome.wall_s)}"
