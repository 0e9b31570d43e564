"""The encoded prompt of P-tuning; `peftsearch.methods.ptuning` names the paper."""

from __future__ import annotations

import torch
from torch import nn

from peftsearch.backbone.anatomy import Block
from peftsearch.methods.layers.attachment import Attachment
from peftsearch.methods.layers.prompt import PromptVectors, attach_prompt, words_of


class EncodedPrompt(PromptVectors):
    """A prompt behind an encoder."""

    def __init__(self, words: nn.Embedding, length: int, hidden: int) -> None:
        super().__init__(words, length)
        nn.init.normal_(self.embedding)
        width = self.embedding.shape[1]
        self.encoder = nn.Sequential(
            nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, width)
        )

    def vectors(self) -> torch.Tensor:
        """The prompt `(l, e)`, as the encoder computes it."""
        encoded: torch.Tensor = self.encoder(self.embedding)
        return encoded


def attach(model: nn.Module, block: Block, length: int, hidden: int) -> Attachment:
    """Put an encoded prompt in front of the model's input."""
    return attach_prompt(model, block, EncodedPrompt(words_of(model, block), length, hidden))


def reduced(module: nn.Module) -> dict[str, torch.Tensor]:
    """The vectors as `prompt` holds them."""
    assert isinstance(module, EncodedPrompt), "the module is of this method"
    return {"embedding": module.vectors()}
