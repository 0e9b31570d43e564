"""Heads of several tasks on one backbone, each with its task's number of classes, attached one at a time."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from peftsearch.backbone.load import LoadedBackbone

Head = dict[str, nn.Module]
"""A head's modules by their paths in the model; empty for the model's own head."""


def make_heads(loaded: LoadedBackbone, num_labels: Sequence[int]) -> list[Head]:
    """Make heads with the given numbers of outputs, on the model's device.

    The first head, and every other of the same width, is the model's own. `reset_head` initialises them.
    """
    model = loaded.model
    return [{} if n == num_labels[0] else _make(model, loaded.backbone.head, n) for n in num_labels]


def _make(model: Any, paths: Sequence[str], num_labels: int) -> Head:
    config = copy.deepcopy(model.config)
    config.num_labels = num_labels
    with torch.device("meta"):
        other = type(model)(config)  # only transformers knows how this family's head is built; takes no memory
    heads = {path: other.get_submodule(path) for path in paths}
    own = {path: next(model.get_submodule(path).parameters()) for path in paths}
    return {path: head.to_empty(device=own[path].device).to(own[path].dtype) for path, head in heads.items()}


@contextmanager
def wearing(model: Any, head: Head) -> Iterator[None]:
    """Put a head on a model while the `with` block lasts, then restore the model's own."""
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
