"""Heads of several tasks on one backbone: as many classes as each task has, worn one at a time."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from peftsearch.backbone.load import LoadedBackbone

Head = dict[str, nn.Module]
"""A head's modules by their paths in the model; empty for the model's own."""


def make_heads(loaded: LoadedBackbone, num_labels: Sequence[int]) -> list[Head]:
    """Heads for tasks with these numbers of outputs, on the model's device.

    The first is the model's own, and so is every other of the same width. Their values are drawn by `reset_head`.
    """
    model = loaded.model
    return [{} if n == num_labels[0] else _make(model, loaded.backbone.head, n) for n in num_labels]


def _make(model: Any, paths: Sequence[str], num_labels: int) -> Head:
    config = copy.deepcopy(model.config)
    config.num_labels = num_labels
    with torch.device("meta"):
        other = type(model)(config)  # transformers alone knows how the head of this family is built; no memory is taken
    own = next(model.parameters())
    return {path: other.get_submodule(path).to_empty(device=own.device).to(own.dtype) for path in paths}


@contextmanager
def wearing(model: Any, head: Head) -> Iterator[None]:
    """Put a head on a model; the model's own comes back at the end."""
    if not head:
        yield
        return
    own = {path: model.get_submodule(path) for path in head}
    for path, module in head.items():
        model.set_submodule(path, module)
    try:
        yield
    finally:
        for path, module in own.items():
            model.set_submodule(path, module)
