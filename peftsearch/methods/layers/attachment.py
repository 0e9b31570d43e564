"""The result of attaching a method to a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import nn


@dataclass(kw_only=True, slots=True)
class Attachment:
    """The new parameters of an attached method, and the calls that remove it."""

    module: nn.Module
    """Module with the method's trainable parameters and nothing else."""
    undo: list[Callable[[], object]] = field(default_factory=list)
    """Calls that `remove` makes in reverse order, which restore the model."""


def join(parts: Mapping[str, Attachment]) -> Attachment:
    """Combine several attachments into one: modules keyed by the names of the parts, undone together."""
    return Attachment(
        module=nn.ModuleDict({name: part.module for name, part in parts.items()}),
        undo=[undo for part in parts.values() for undo in part.undo],
    )
