"""A prompt in a subspace; `peftsearch.methods.ipt` names the paper."""

from __future__ import annotations

import torch
from torch import nn

from peftsearch.backbone.anatomy import Block
from peftsearch.backbone.subspace import Directions, read_directions
from peftsearch.methods.layers.attachment import Attachment
from peftsearch.methods.layers.prompt import FrontTokens, attach_prompt, words_of


class PromptCoordinates(FrontTokens):
    """The trained coordinates, and the frozen mean and directions."""

    def __init__(self, words: nn.Embedding, directions: Directions, size: int) -> None:
        super().__init__(words, len(directions.mean))
        self.coordinates = nn.Parameter(torch.zeros(size))
        # Not part of the trained state: a file holds them.
        self.register_buffer("mean", directions.mean, persistent=False)
        steps = directions.scale[:size, None, None] * directions.basis[:size]
        self.register_buffer("steps", steps, persistent=False)

    def vectors(self) -> torch.Tensor:
        """The prompt `(l, e)`."""
        found: torch.Tensor = self.mean + torch.tensordot(self.coordinates, self.steps, dims=1)
        return found


def attach(model: nn.Module, block: Block, size: int) -> Attachment:
    """Put a prompt of the block's subspace in front of the model's input."""
    assert block.words is not None, "the obstacle was checked"
    assert block.words.subspace is not None, "the obstacle was checked"
    directions = read_directions(block.words.subspace)
    return attach_prompt(model, block, PromptCoordinates(words_of(model, block), directions, size))


def reduced(module: nn.Module) -> dict[str, torch.Tensor]:
    """The vectors as `prompt` holds them."""
    assert isinstance(module, PromptCoordinates), "the module is of this method"
    return {"embedding": module.vectors()}
