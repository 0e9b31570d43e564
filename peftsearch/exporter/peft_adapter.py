"""The contents of an HF peft adapter, and helpers that find the injected modules for it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from peftsearch.backbone.private_torch import hook_owners
from peftsearch.design.architecture import Placement
from peftsearch.injection.inject import Injection

PREFIX = "base_model.model."
"""Prefix of a module's path in HF peft's files."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PeftAdapter:
    """One adapter of HF peft, excluding the head and other modules that are saved whole."""

    config: str
    """Class name of the configuration: `LoraConfig`."""
    options: dict[str, Any]
    """Arguments of the configuration."""
    tensors: dict[str, torch.Tensor]
    """Trained tensors by their names in HF peft's file."""
    told: str
    """Description of the contents for the user."""
    notes: tuple[str, ...] = ()
    """Further lines for the user."""
    n_prompt: int = 0
    """Number of prompt positions, for which the logits have extra rows in front of the text's."""


def hooks_of(model: nn.Module, *kinds: type[nn.Module]) -> Iterator[tuple[str, Any]]:
    """Pairs of a hooked module's path and a hook module of one of the kinds on it."""
    for path, module in model.named_modules():
        for owner in hook_owners(module).values():
            if isinstance(owner, kinds):
                yield path, owner


def placement_of(injection: Injection, part: nn.Module) -> Placement:
    """The placement that an injected module belongs to."""
    for p in injection.architecture.placements:
        if any(part is module for module in injection.injected[p.key].modules()):
            return p
    raise AssertionError("every part was placed")


def are_conv1d(model: nn.Module, paths: Iterable[str]) -> bool:
    """Whether maps are transformers' Conv1D, whose weights are (d_in, d_out): peft's `fan_in_fan_out`."""
    return all(not isinstance(model.get_submodule(path), nn.Linear) for path in paths)
