"""A training that pauses: its parameters, AdamW's moments and its course, in safetensors' format.

Random generators need no state, since every step seeds them (`loop.seed_step`), and the place in the data is the number
of the step.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import ceil
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from peftsearch.engine.loop import TrainingLog
from peftsearch.errors import StudyError, one_line
from peftsearch.injection.states import kept_buffers

FORMAT = "peftsearch-paused/1"
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")
_COURSE = "course"

State = dict[str, Tensor]
"""Values by parameter name."""


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """The trained parameters, by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def kept(model: nn.Module) -> dict[str, Tensor]:
    """The trained parameters and their injected buffers, such as chosen positions, by name."""
    return {**trained(model), **kept_buffers(model)}


def copied(model: nn.Module) -> State:
    """Copies of the trained parameters and their buffers, on the CPU."""
    return {name: value.detach().to("cpu", copy=True).contiguous() for name, value in kept(model).items()}


def put(model: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Put copies of parameters and buffers back into a model.

    Raises:
        StudyError: The copies belong to another architecture.
    """
    own = kept(model)
    if {n: p.shape for n, p in own.items()} != {n: v.shape for n, v in values.items()}:
        raise StudyError("the snapshot holds other parameters than the model trains")
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(values[name])


def moments_of(model: nn.Module, optimizer: torch.optim.Optimizer) -> State:
    """AdamW's moments and step counts, as `exp_avg/NAME` and so on, on the CPU."""
    names = {id(parameter): name for name, parameter in trained(model).items()}
    return {
        f"{key}/{names[id(parameter)]}": moments[key].detach().to("cpu", copy=True).contiguous()
        for parameter, moments in optimizer.state.items()
        for key in _MOMENTS
    }


def put_moments(model: nn.Module, optimizer: torch.optim.Optimizer, values: Mapping[str, Tensor]) -> None:
    """Give an optimizer the moments that `moments_of` took."""
    moments = {key: part(values, key) for key in _MOMENTS}
    names = {id(parameter): name for name, parameter in trained(model).items()}
    ordered = [names[id(p)] for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, Any] = {
        i: {key: moments[key][name] for key in _MOMENTS} for i, name in enumerate(ordered) if name in moments["step"]
    }
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def part(tensors: Mapping[str, Tensor], name: str) -> State:
    """The tensors under a prefix, without it."""
    return {key.removeprefix(f"{name}/"): value for key, value in tensors.items() if key.startswith(f"{name}/")}


def average_from(step: int, n_steps: int, warmup_share: float) -> int:
    """The step after which the weights of a training that pauses are averaged for its validation.

    These are the last third of its steps, but none of the warm-up, in which the mean only lags behind.

    Args:
        step: The step at which it pauses.
        n_steps: Steps of the whole schedule.
        warmup_share: Share of them that warms up.
    """
    return min(step - 1, max(step - max(1, step // 3), ceil(n_steps * warmup_share)))


class Average:
    """The mean of the trained parameters over some steps.

    In the middle of a schedule the rate is high, and what a validation shows is mostly its noise; the mean of the last
    weights is near what the rest of the schedule would anneal them to (stochastic weight averaging, arXiv 1803.05407).
    """

    def __init__(self) -> None:
        self._sums: State = {}
        self._n = 0

    @torch.no_grad()
    def add(self, model: nn.Module) -> None:
        """Take the parameters as they are."""
        for name, parameter in trained(model).items():
            if name in self._sums:
                self._sums[name] += parameter
            else:
                self._sums[name] = parameter.detach().clone()
        self._n += 1

    @torch.no_grad()
    def put(self, model: nn.Module) -> None:
        """Give the model the mean."""
        for name, parameter in trained(model).items():
            if name in self._sums:
                parameter.copy_(self._sums[name] / self._n)


def pause(model: nn.Module, optimizer: torch.optim.Optimizer, step: int, log: TrainingLog) -> bytes:
    """Take a snapshot of a training.

    Args:
        model: The model.
        optimizer: Its optimizer.
        step: Number of steps done.
        log: Losses and seconds of all of them.
    """
    course = json.dumps({"step": step, "losses": log.losses, "step_s": log.step_s})
    tensors = {f"now/{name}": value for name, value in copied(model).items()} | moments_of(model, optimizer)
    packed: bytes = save(tensors, {"format": FORMAT})
    # safetensors reads its metadata from files alone, so the course stands in front.
    head = course.encode()
    return len(head).to_bytes(8, "little") + head + packed


def thaw(snapshot: bytes, model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[int, TrainingLog]:
    """Put a snapshot into a model that is ready and its new optimizer.

    Returns:
        Number of steps done, and the log of all of them.

    Raises:
        StudyError: The snapshot is damaged, or belongs to another architecture.
    """
    n = int.from_bytes(snapshot[:8], "little")
    try:
        course = json.loads(snapshot[8 : 8 + n])
        tensors = load(snapshot[8 + n :])
        log = TrainingLog(losses=list(course["losses"]), step_s=list(course["step_s"]))
        step = int(course["step"])
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise StudyError(
            f"a paused training is damaged ({one_line(error, 120)}); remove the folder paused in the study's folder, "
            "and the same command trains it from its start"
        ) from error
    put(model, part(tensors, "now"))
    put_moments(model, optimizer, tensors)
    return step, log
