"""Read and write the trained state: the injected parameters and buffers, and the head."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from peftsearch.errors import MethodError
from peftsearch.files import write_state
from peftsearch.injection.inject import NAME, injection_of

FORMAT = "peftsearch-1"
"""Format version in the metadata of saved states."""


def state(model: nn.Module) -> dict[str, torch.Tensor]:
    """Copy the trained state: injected parameters (`peftsearch.STACK_BLOCK_METHOD...`) and the head's, by name.

    It includes the injected buffers, such as the positions that a sparse method chose.
    """
    return {name: parameter.detach().clone() for name, parameter in _trained(model).items()}


def set_state(model: nn.Module, values: Mapping[str, torch.Tensor]) -> None:
    """Put values from `state` into a model with the same architecture.

    Raises:
        MethodError: A name or a shape differs; the model is then unchanged.
    """
    trained = _trained(model)
    for name in sorted(trained.keys() | values.keys()):
        if name not in values:
            raise MethodError(f"state: {name} is missing; the model has it")
        if name not in trained:
            raise MethodError(f"state: {name} is not in the model; inject the architecture the state was saved from")
        if values[name].shape != trained[name].shape:
            given, needed = tuple(values[name].shape), tuple(trained[name].shape)
            raise MethodError(f"state: {name} has shape {given}, the model needs {needed}")
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter.copy_(values[name])


def packed_state(model: nn.Module) -> bytes:
    """The trained state in safetensors' format, which `load_state` reads from a file."""
    return pack(state(model))


def pack(values: Mapping[str, torch.Tensor]) -> bytes:
    """Values of `state` in safetensors' format."""
    packed: bytes = save({name: value.contiguous() for name, value in values.items()}, {"format": FORMAT})
    return packed


def save_state(model: nn.Module, path: Path | str) -> None:
    """Write the trained state to a safetensors file, whole or not at all.

    Raises:
        OSError: The disk is full, read-only or forbidden.
    """
    write_state(packed_state(model), path)


def load_state(model: nn.Module, path: Path | str) -> None:
    """Read a file of `save_state` into a model with the same architecture.

    Raises:
        MethodError: The file is missing, has another format, or belongs to another architecture.
    """
    set_state(model, read_state(path))


def read_state(path: Path | str) -> dict[str, torch.Tensor]:
    """Read a file of `save_state`; `set_state` puts it into a model.

    Raises:
        MethodError: The file is missing or has another format.
    """
    try:
        with safe_open(path, framework="pt") as file:
            version = (file.metadata() or {}).get("format")
            values = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a dict: it cannot be iterated
    except (SafetensorError, OSError) as error:
        raise MethodError(f"{path}: not a readable safetensors file ({error})") from error
    if version != FORMAT:
        raise MethodError(f"{path}: format is {version!r}, this version reads {FORMAT!r}")
    return values


def kept_buffers(model: nn.Module) -> dict[str, torch.Tensor]:
    """The injected buffers that are part of the trained state (chosen positions), by their names in the model.

    Buffers that a method regenerates from a name, such as the projections of SAID, are not included.
    """
    injected = getattr(model, NAME, None)
    if injected is None:
        return {}
    kept = injected.state_dict(keep_vars=True)
    return {f"{NAME}.{name}": value for name, value in kept.items() if not isinstance(value, nn.Parameter)}


def _trained(model: nn.Module) -> dict[str, torch.Tensor]:
    """The injected parameters, the kept buffers and the head's parameters, by their names in the model."""
    injected = injection_of(model).injected
    named: dict[str, torch.Tensor] = dict(model.named_parameters()) | kept_buffers(model)
    return {name: value for name, value in named.items() if name in injected.head or name.startswith(f"{NAME}.")}
