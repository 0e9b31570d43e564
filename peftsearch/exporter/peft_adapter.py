"""What an adapter of HF peft is made of, and how the parts of ours are found that go into it."""

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
"""In front of a module's path in HF peft's files."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PeftAdapter:
    """One adapter of HF peft, the head and what else it saves whole apart."""

    config: str
    """Name of the class of its configuration: `LoraConfig`."""
    options: dict[str, Any]
    """What the configuration is made with."""
    tensors: dict[str, torch.Tensor]
    """What is trained, by the names of HF peft's file."""
    told: str
    """What it holds, for the user."""
    notes: tuple[str, ...] = ()
    """Further lines for the user."""
    n_prompt: int = 0
    """Positions in front of the text that its logits have too."""


def hooks_of(model: nn.Module, *kinds: type[nn.Module]) -> Iterator[tuple[str, Any]]:
    """Paths of hooked modules and the hook modules of some kinds on them."""
    for path, module in model.named_modules():
        for owner in hook_owners(module).values():
            if isinstance(owner, kinds):
                yield path, owner


def placement_of(injection: Injection, part: nn.Module) -> Placement:
    """The placement that an injected module is a part of."""
    for p in injection.architecture.placements:
        if any(part is module for module in injection.injected[f"{p.stack}_{p.block}_{p.method}"].modules()):
            return p
    raise AssertionError("every part was placed")


def are_conv1d(model: nn.Module, paths: Iterable[str]) -> bool:
    """Whether maps are transformers' Conv1D, which keep their weights as (d_in, d_out): `fan_in_fan_out` there."""
    return all(not isinstance(model.get_submodule(path), nn.Linear) for path in paths)
