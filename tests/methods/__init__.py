"""Shared by the tests of methods and injection: architectures with chosen sizes, and values off their start."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from peftsearch.architecture import Architecture, Placement
from peftsearch.backbone.anatomy import Backbone
from peftsearch.methods import METHODS
from tests.tiny import FAMILIES


def make(family: str = "bert") -> Any:
    """A tiny model in evaluation mode, always the same, whose matrices are large enough for every effect to show."""
    torch.manual_seed(0)
    model = FAMILIES[family](num_labels=2).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape)
    return model


def indices(start: int, width: int, d_module: int, n_pieces: int) -> list[int]:
    """Where the outputs of a slice are in its module's output, counted out one by one."""
    piece = (d_module or width) // n_pieces
    return [i * piece + start + j for i in range(n_pieces) for j in range(width // n_pieces)]


def place(backbone: Backbone, **sizes: int) -> Architecture:
    """Put each method at its size on every block: `place(backbone, lora=4, prefix=2)`."""
    return Architecture(
        placements=tuple(
            Placement(
                stack=block.stack,
                block=block.index,
                method=name,
                size=min(size, METHODS[name].max_size(block)),
                n_params=METHODS[name].count(block, min(size, METHODS[name].max_size(block))),
            )
            for block in backbone.blocks
            for name, size in sizes.items()
        )
    )


def available(backbone: Backbone, **sizes: int) -> dict[str, int]:
    """Those of the methods that can act on every block."""
    return {
        name: size
        for name, size in sizes.items()
        if all(METHODS[name].obstacle(block) is None for block in backbone.blocks)
    }


def disturb(model: nn.Module, std: float = 0.1) -> None:
    """Move the injected parameters away from their initial values."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.get_submodule("peftsearch").parameters():
            parameter += std * torch.randn(parameter.shape, generator=generator)
