"""The training of one seed: batches shared by processes and parts, evaluations on the way, a snapshot at each.

A batch has the same examples however many processes and parts share it, and each part counts by its examples; so
neither changes the result but by rounding and by what dropout draws. Every step seeds the generators by seed, step and
process: a training that goes on from a snapshot draws what the uninterrupted one would.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from torch import Tensor, nn

from peftsearch.engine.generation import score_pairs
from peftsearch.engine.loop import accumulate, adamw, cut, rate_factor, read, seed_step
from peftsearch.engine.scoring import logits_of, score_answers
from peftsearch.engine.snapshot import State, copied, trained
from peftsearch.engine.trainable import checkpointing
from peftsearch.errors import Diverged
from peftsearch.injection.modes import set_training
from peftsearch.tasks.encoding.batches import index_batches
from peftsearch.tasks.encoding.encoded import EncodedSplit
from peftsearch.tasks.encoding.pairs import EncodedPairs
from peftsearch.tasks.encoding.spans import EncodedSpans
from peftsearch.tasks.own_metric import short_name
from peftsearch.trainer.plan import Plan
from peftsearch.trainer.snapshot import Course, read_course, restore, write_snapshot
from peftsearch.trainer.tracking import Log


def train_seed(plan: Plan, seed: int, snapshot: Path, say: Callable[[str], None], log: Log) -> Course:
    """Train with one seed, from its snapshot where there is one, and leave a snapshot of the end.

    Args:
        plan: What to train, and how.
        seed: Of the initial values, the batches and dropout.
        snapshot: Where it is written.
        say: Takes a line for every evaluation.
        log: Takes the values of every evaluation.

    Returns:
        The course; with a reason where the training diverged.
    """
    known = read_course(snapshot)
    if known is not None and known.is_done(plan.n_steps):
        return known
    try:
        return _from_known(plan, seed, known, snapshot, say, log)
    except Diverged as error:  # before the first step, where methods choose what they train
        say(f"seed {seed}: diverged: {error}")
        return Course(seed=seed, reason=str(error))


def _from_known(
    plan: Plan, seed: int, known: Course | None, snapshot: Path, say: Callable[[str], None], log: Log
) -> Course:
    """Train from the snapshot of a known course, or from the start.

    Raises:
        Diverged: Before the first step; later it is the course's reason.
    """
    with plan.ready(seed, choose=known is None) as model, checkpointing(model, plan.training.gradient_checkpointing):
        course, best = Course(seed=seed), State()
        optimizer = adamw(plan.groups(), plan.processes.device)
        rates = [group["lr"] for group in optimizer.param_groups]
        if known is not None:
            course, best = restore(snapshot, model, optimizer)
            say(f"seed {seed}: resumes after step {course.step} of {plan.n_steps}")
        wrapped = plan.processes.wrap(model)
        try:
            _train(plan, wrapped, optimizer, rates, course, best, snapshot, say, log)
        except Diverged as error:
            course.reason = str(error)
            say(f"seed {seed}: diverged: {error}")
            if plan.processes.is_first:
                write_snapshot(snapshot, course, model, optimizer, best)
        finally:
            plan.processes.release()
    return course


def _train(
    plan: Plan,
    wrapped: nn.Module,
    optimizer: torch.optim.Optimizer,
    rates: list[float],
    course: Course,
    best: State,
    snapshot: Path,
    say: Callable[[str], None],
    log: Log,
) -> None:
    """Train to the end; `course` and `best` are kept up to date."""
    model, settings = plan.loaded.model, plan.training
    batches = index_batches(plan.data.train, settings.batch_size, seed=course.seed, steps=plan.n_steps)
    for step, indices in enumerate(batches):
        if step < course.step:
            continue  # done before the training was interrupted
        started = time.perf_counter()
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * rate_factor(step, plan.n_steps, settings.warmup_share)
        course.losses.append(_step(plan, wrapped, indices, course.seed, step))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        course.train_s += time.perf_counter() - started
        course.step = step + 1
        if course.step % plan.eval_every == 0 or course.step == plan.n_steps:
            value = split_score(plan, plan.data.validation)
            course.scores[course.step] = value
            if course.best is None or value > course.best:
                course.best_step = course.step
                best |= copied(model)
            course.stopped = plan.options.early_stopping is not None and course.waits() >= plan.options.early_stopping
            mark = "  best so far" if course.best_step == course.step else ""
            recent = course.losses[-plan.eval_every :]
            say(
                f"seed {course.seed}: step {course.step:>5} of {plan.n_steps}  loss {mean(recent):.4f}  "
                f"{short_name(plan.task.metric)} {value:.4f}{mark}"
            )
            log({f"seed_{course.seed}/loss": mean(recent), f"seed_{course.seed}/score": value}, course.step)
            if plan.processes.is_first:
                write_snapshot(snapshot, course, model, optimizer, best)
            if course.stopped:
                say(f"seed {course.seed}: stops early: no better score in {plan.options.early_stopping} validations")
                return


def _step(plan: Plan, wrapped: nn.Module, indices: list[int], seed: int, step: int) -> float:
    """Compute this process's share of a batch; the loss of the whole batch over all processes."""
    processes = plan.processes
    seed_step(seed, step, processes.n, processes.index)
    wrapped.train()
    set_training(plan.loaded.model, dropout=plan.training.dropout)
    loss, norm = accumulate(
        wrapped,
        cut(plan.data.train.collate(indices), plan.training.accumulate, processes.index, processes.n),
        list(trained(plan.loaded.model).values()),
        injected=plan.loaded.model,
        max_grad_norm=plan.training.max_grad_norm,
        loss_of=plan.objective.loss,
        device=processes.device,
        autocast=plan.autocast,
        processes=processes,
    )
    return read(loss, norm, step + 1)


def split_score(plan: Plan, split: EncodedSplit) -> float:
    """The task's metric on a split, computed by all processes together; of a generation by each of them alone.

    Raises:
        Diverged: An output is not a finite number.
    """
    processes = plan.processes
    if isinstance(split, EncodedPairs):
        return score_pairs(plan.loaded.model, split, plan.task.metric, **evaluation_options(plan))[0]
    logits: Tensor = processes.sum(
        logits_of(plan.loaded.model, split, part=(processes.index, processes.n), **evaluation_options(plan))
    )
    if isinstance(split, EncodedSpans):
        return score_answers(plan.task.metric, logits, split)[0]
    return plan.objective.score(logits, split.labels)


def evaluation_options(plan: Plan) -> dict[str, Any]:
    """Batch size, device and precision of forward passes without gradients."""
    return {
        "batch_size": 2 * plan.training.batch_size,
        "device": plan.processes.device,
        "autocast": plan.autocast,
    }
