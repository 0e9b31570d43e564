"""The training loop: AdamW, linear warm-up and decay, gradient clipping, divergence detection.

It trains whatever parameters the groups hold, on prepared batches (tokenised once per study, bucketed by length), and
knows nothing of methods, studies or tasks beyond the loss.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from peftsearch.engine.settings import TrainingSettings
from peftsearch.errors import Diverged
from peftsearch.injection.extra_loss import extra_loss
from peftsearch.injection.modes import set_training
from peftsearch.tasks.encoding.pairs import IGNORED

N_WATCHED = 3
"""Batches to take the loss of if nothing is trained, as in the frozen model of a generation task."""
READ_EVERY = 25
"""Steps after which losses and norms are read from a GPU: reading one waits until the GPU has done all before it."""
_SEED_STRIDE = 1_000_003
"""A prime above all step numbers that matter, so that steps of near seeds do not share their generators."""


@dataclass(kw_only=True, slots=True)
class TrainingLog:
    """Losses and times of a training."""

    losses: list[float] = field(default_factory=list)
    """Training loss of each step."""
    step_s: list[float] = field(default_factory=list)
    """Seconds of each step, excluding evaluations."""

    @property
    def train_s(self) -> float:
        """Seconds of all steps."""
        return sum(self.step_s)


def rate_factor(step: int, n_steps: int, warmup_share: float) -> float:
    """Factor of the learning rate at a step, counted from 0: linear warm-up, then linear decay to 0."""
    n_warmup = math.ceil(n_steps * warmup_share)
    if step < n_warmup:
        return (step + 1) / n_warmup
    return max(0.0, (n_steps - step) / max(1, n_steps - n_warmup))


def train(
    model: nn.Module,
    groups: list[dict[str, Any]],
    batches: Iterable[dict[str, Tensor]],
    *,
    n_steps: int,
    settings: TrainingSettings,
    loss_of: Callable[[Tensor, Tensor], Tensor],
    device: torch.device,
    autocast: torch.dtype | None = None,
    seed: int = 0,
    optimizer: torch.optim.Optimizer | None = None,
    first: int = 0,
    until: int | None = None,
) -> Generator[int, None, TrainingLog]:
    """Train the parameters of `groups`, step by step; the caller may evaluate the model between two steps.

    Every step seeds the generators by the seed and its number, so that trainings with equal seeds draw the same dropout
    whatever else they draw, and one that goes on from a snapshot draws what the uninterrupted one would.

    Args:
        model: Gives `.logits` `(batch, num_labels)` for a batch without its labels.
        groups: AdamW parameter groups with `params`, `lr` and `weight_decay`; if empty, nothing is trained.
        batches: The batches from step `first` on, with `labels`.
        n_steps: Optimizer steps of the whole schedule.
        settings: Schedule and clipping.
        loss_of: Loss of logits and labels.
        device: Where the model is.
        autocast: Reduced precision for the forward pass; None trains in the model's own.
        seed: Seed of dropout and of whatever else a step draws.
        optimizer: One that `adamw` made for the groups, with the moments of the earlier steps; None makes it.
        first: Number of steps already done.
        until: Step at which the training pauses; None is the end of the schedule.

    Yields:
        The number of steps done, after each of them.

    Returns:
        Losses and seconds; time between two steps is not counted.

    Raises:
        Diverged: A loss or a gradient norm is not finite.
    """
    if not groups:
        return (yield from _watch(model, batches, min(n_steps, N_WATCHED), loss_of, device, autocast))
    optimizer = adamw(groups, device) if optimizer is None else optimizer
    rates = [group["lr"] for group in groups]
    params = [p for group in optimizer.param_groups for p in group["params"]]
    log, last = TrainingLog(), n_steps if until is None else until
    unread = _Unread(log, first, READ_EVERY if device.type == "cuda" else 1)
    for step, batch in enumerate(batches, first + 1):
        set_training(model, dropout=settings.dropout)
        started = time.perf_counter()
        seed_step(seed, step - 1)
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * rate_factor(step - 1, n_steps, settings.warmup_share)
        loss, norm = accumulate(
            model,
            cut(batch, settings.accumulate),
            params,
            injected=model,
            max_grad_norm=settings.max_grad_norm,
            loss_of=loss_of,
            device=device,
            autocast=autocast,
            processes=ALONE,
        )
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        unread.add(loss, norm, started, at_once=step == last)
        yield step
        if step == last:
            return log
    raise ValueError(f"the batches ended after {first + len(log.losses)} of {last} steps")


class _Unread:
    """Steps whose losses and norms are still on a GPU; reading them waits until it has done all of them.

    Args:
        log: Receives losses and seconds, which are shared out among the steps that are read together.
        first: Number of steps before the first.
        every: Steps that are read together.
    """

    def __init__(self, log: TrainingLog, first: int, every: int) -> None:
        self._log, self._first, self._every = log, first, every
        self._steps: list[tuple[Tensor, Tensor]] = []
        self._spent = 0.0

    def add(self, loss: Tensor, norm: Tensor, started: float, *, at_once: bool) -> None:
        """Add a step that began at `started`, and read if it is time.

        Raises:
            Diverged: A loss or a norm that is read is not finite.
        """
        self._steps.append((loss, norm))
        n = len(self._steps) if at_once or len(self._steps) == self._every else 0
        if n:
            number = self._first + len(self._log.losses) + 1
            self._log.losses += [read(*each, i) for i, each in enumerate(self._steps, number)]
        self._spent += time.perf_counter() - started
        if n:
            self._log.step_s += [self._spent / n] * n
            self._steps, self._spent = [], 0.0


def adamw(groups: list[dict[str, Any]], device: torch.device) -> torch.optim.Optimizer:
    """The optimizer of a training; the groups keep their rates, which the schedule scales step by step."""
    own = [dict(group) for group in groups]
    return torch.optim.AdamW(own, fused=device.type in {"cpu", "cuda"})


def seed_step(seed: int, step: int, n_processes: int = 1, process: int = 0) -> None:
    """Seed the generators of one step, from 0, of one of several processes."""
    torch.manual_seed((seed * _SEED_STRIDE + step) * n_processes + process)


def _watch(
    model: nn.Module,
    batches: Iterable[dict[str, Tensor]],
    n_steps: int,
    loss_of: Callable[[Tensor, Tensor], Tensor],
    device: torch.device,
    autocast: torch.dtype | None,
) -> Generator[int, None, TrainingLog]:
    """Take the losses of a model without training it, on a few batches; yields steps as `train` does."""
    log = TrainingLog()
    for step, batch in zip(range(1, n_steps + 1), batches, strict=False):
        model.train()
        started = time.perf_counter()
        with torch.no_grad():
            logits, labels = forward(model, batch, device, autocast)
            log.losses.append(float(loss_of(logits.float(), labels)))
        log.step_s.append(time.perf_counter() - started)
        yield step
    return log


def cut(batch: dict[str, Tensor], n_parts: int, index: int = 0, n: int = 1) -> list[tuple[dict[str, Tensor], float]]:
    """What one of several processes computes of a batch, in parts.

    Batches come sorted by length: every n-th example gives all processes the same work, and runs of neighbours give
    parts of like length.

    Args:
        batch: Tensors whose first dimension is the examples, `labels` among them.
        n_parts: Most parts of the process's share.
        index: Index of the process, from 0.
        n: Number of processes.

    Returns:
        Each part with the share of the batch's loss that it counts: its part of the labels, not of the examples, since
        a loss is a mean over labels and texts have many. A process without an example works along, for nothing.
    """
    labels = batch["labels"]
    if n_parts == n == 1:
        return [(batch, 1.0)]
    learned = (labels != IGNORED).sum(1) if labels.dim() == 2 else torch.ones(len(labels))
    own = list(range(len(labels)))[index::n]
    size = max(1, -(-len(own) // n_parts))
    parts = []
    for rows in [own[i : i + size] for i in range(0, len(own), size)] or [[]]:
        part = {name: value[rows or [0]] for name, value in batch.items()}
        parts.append((part, float(learned[rows].sum() / learned.sum())))
    return parts


class Processes(Protocol):
    """The processes that compute a step together."""

    @property
    def n(self) -> int:
        """Number of processes."""

    def apart(self, model: nn.Module) -> AbstractContextManager[None]:
        """Gradients stay in this process while the context lasts."""

    def backward(self, loss: Tensor) -> None:
        """Backward pass of a loss `()`."""

    def sum(self, value: Tensor) -> Tensor:
        """The sum over all processes."""


class OneProcess:
    """A step of this process alone."""

    n = 1

    def apart(self, model: nn.Module) -> AbstractContextManager[None]:
        """Nothing is shared, so nothing is kept apart."""
        return nullcontext()

    def backward(self, loss: Tensor) -> None:
        """Backward pass of a loss `()`."""
        loss.backward()  # type: ignore[no-untyped-call]  # torch ships it untyped

    def sum(self, value: Tensor) -> Tensor:
        """The value itself."""
        return value


ALONE = OneProcess()


def accumulate(
    model: nn.Module,
    parts: Sequence[tuple[dict[str, Tensor], float]],
    params: Sequence[Tensor],
    *,
    injected: nn.Module,
    max_grad_norm: float,
    loss_of: Callable[[Tensor, Tensor], Tensor],
    device: torch.device,
    autocast: torch.dtype | None,
    processes: Processes,
) -> tuple[Tensor, Tensor]:
    """Run forward and backward of all parts of a batch, and clip the gradients: a step without the optimizer's part.

    Args:
        model: What is called, which may be wrapped for several processes.
        parts: Batches that this process computes, each with the share of the whole batch that it counts.
        params: What is trained.
        injected: The model itself, which holds what adds to the loss.
        max_grad_norm: Global norm to which gradients are clipped.
        loss_of: Loss of logits and labels.
        device: Where the model is.
        autocast: Reduced precision of the forward pass, or None.
        processes: Those that compute the step together.

    Returns:
        The loss `()` of the whole batch over all processes, and the norm `()` of the gradients before clipping; `read`
        reads them.
    """
    total = torch.zeros((), device=device)
    for number, (batch, share) in enumerate(parts, 1):
        with nullcontext() if number == len(parts) else processes.apart(model):
            logits, labels = forward(model, batch, device, autocast)
            if share == 0:  # no label to learn, whose mean would be no number; the backward pass is shared all the same
                processes.backward(logits.sum() * 0.0)
                continue
            loss = loss_of(logits.float(), labels)
            added = extra_loss(injected, logits, partial(_logits, model, batch, device, autocast))
            loss = (loss if added is None else loss + added) * share
            processes.backward(loss * processes.n)  # DistributedDataParallel takes the mean over the processes
        total += loss.detach()
    return processes.sum(total), nn.utils.clip_grad_norm_(params, max_grad_norm)


def _logits(model: nn.Module, batch: dict[str, Tensor], device: torch.device, autocast: torch.dtype | None) -> Tensor:
    return forward(model, batch, device, autocast)[0]


def read(loss: Tensor, norm: Tensor, step: int) -> float:
    """Read the loss of a step from where it was computed.

    Args:
        loss: The loss `()`.
        norm: The norm `()` of its gradients.
        step: Number of the step, for messages.

    Raises:
        Diverged: The loss or the norm is not finite.
    """
    value = float(loss)
    if not math.isfinite(value):
        raise Diverged(f"the loss is {value} at step {step}")
    if not math.isfinite(float(norm)):
        raise Diverged(f"the gradient norm is {float(norm)} at step {step}")
    return value


def forward(
    model: nn.Module, batch: dict[str, Tensor], device: torch.device, autocast: torch.dtype | None
) -> tuple[Tensor, Tensor]:
    """Logits `(batch, num_labels)` and labels `(batch,)` of one batch."""
    if device.type == "cuda":
        batch = {name: tensor.pin_memory() for name, tensor in batch.items()}  # without it non_blocking has no effect
    moved = {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}
    labels = moved.pop("labels")
    with torch.autocast(device.type, dtype=autocast, enabled=autocast is not None):
        logits: Tensor = model(**moved).logits
    return logits, labels
