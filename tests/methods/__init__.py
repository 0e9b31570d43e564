"""Shared by the tests of methods and injection: architectures with chosen sizes, and values off their start."""

from __future__ import annotations

from collections.abc import Hashable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from peftsearch.backbone.anatomy import Backbone
from peftsearch.backbone.subspace import Directions, with_subspace, write_subspace
from peftsearch.design.architecture import Architecture, Placement
from peftsearch.engine.priming import prime
from peftsearch.injection.in_place import in_place
from peftsearch.methods import get_method
from peftsearch.methods.abilities import count_placed, is_placed, sharing_key
from tests.tiny import FAMILIES, tiny_input

_FOLDER = TemporaryDirectory(prefix="peftsearch-tests-")


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


@cache
def made_subspace(model_type: str, width: int) -> str:
    """A file with four random directions of prompts of three tokens."""
    generator = torch.Generator().manual_seed(0)
    rows, _ = torch.linalg.qr(torch.randn(3 * width, 4, generator=generator))
    directions = Directions(
        mean=torch.randn(3, width, generator=generator),
        basis=rows.T.reshape(4, 3, width),
        scale=torch.tensor([4.0, 3.0, 2.0, 1.0]),
    )
    path = Path(_FOLDER.name) / f"{model_type}-{width}.safetensors"
    write_subspace(path, directions, Backbone(name="made", model_type=model_type, n_params=1, stacks=()), ["a", "b"])
    return str(path)


def equipped(backbone: Backbone) -> Backbone:
    """The anatomy with a subspace of prompts, where prompts can act."""
    words = backbone.blocks[0].words
    return backbone if words is None else with_subspace(backbone, made_subspace(backbone.model_type, words.width))


def place(backbone: Backbone, **sizes: int) -> Architecture:
    """Put each method at its size on every block: `place(backbone, lora=4, prefix=2)`."""
    placements = []
    seen: set[Hashable] = set()
    for block in backbone.blocks:
        for name, wanted in sizes.items():
            method = get_method(name)
            if is_placed(method, block, backbone.blocks[0]):
                size = min(wanted, method.max_size(block))
                together = sharing_key(method, block.stack, 0)
                n_params = count_placed(method, block, size, together not in seen)
                seen.add(together)
                placements.append(
                    Placement(stack=block.stack, block=block.index, method=name, size=size, n_params=n_params)
                )
    return Architecture(placements=tuple(placements))


def available(backbone: Backbone, **sizes: int) -> dict[str, int]:
    """Those of the methods that can act on every block."""
    return {
        name: size
        for name, size in sizes.items()
        if all(get_method(name).obstacle(block) is None for block in backbone.blocks)
    }


def settle(model: nn.Module) -> None:
    """Let methods choose what they train, on one batch."""
    inputs = tiny_input(model)
    batch = inputs | {"labels": torch.arange(len(next(iter(inputs.values())))) % 2}
    prime(model, [batch], loss_of=functional.cross_entropy)


def disturb(model: nn.Module, std: float = 0.1) -> None:
    """Move the injected parameters away from their initial values."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.get_submodule("peftsearch").parameters():
            parameter += std * torch.randn(parameter.shape, generator=generator)


def shift_in_place(model: Any) -> None:
    """Add 1 to all weights as full fine-tuning would: on copies in float32, after which the model has its own again."""
    before = {name: p.clone() for name, p in model.named_parameters()}
    with in_place(model):
        assert {p.dtype for p in model.parameters()} == {torch.float32}
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 1.0
    after = dict(model.named_parameters())
    assert all(after[name].dtype == p.dtype and torch.equal(after[name], p) for name, p in before.items())
