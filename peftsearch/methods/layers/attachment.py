"""The result of attaching a method to a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import nn


@dataclass(kw_only=True, slots=True)
class Attachment:
    """The new parameters of an attached method, and how to take the method out again."""

    module: nn.Module
    """Holds the method's trainable parameters and nothing else."""
    undo: list[Callable[[], object]] = field(default_factory=list)
    """Called in reverse order by `remove`; after them the model is as it was."""


def join(parts: Mapping[str, Attachment]) -> Attachment:
    """Make one attachment of several: the modules by the names of the parts, undone together."""
    return Attachment(
        module=nn.ModuleDict({name: part.module for name, part in parts.items()}),
        undo=[undo for part in parts.values() for undo in part.undo],
    )
