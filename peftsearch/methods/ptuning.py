"""P-tuning: a prompt whose embeddings come out of a small encoder (arXiv 2103.10385).

Sec. 3.2 puts an encoder between the trained pseudo-tokens and the model, so that they do not move one by one; after
training it is dropped and its output kept, and the placement becomes one of `prompt`. The encoder here is the
perceptron of HF peft (three layers, ReLU; the paper's is an LSTM with a perceptron) with a hidden width of h = 16: its
parameters are trained, so they are in the budget. The pseudo-tokens start as standard normals, there as in the authors'
code: from embeddings of words, which are short, the encoder would make nearly the same vector of each. The size is the
length l, from 1 to 100; trained are l e + (e h + h) + (h h + h) + (h e + e) parameters, kept are l e. The output does
change at init. It does not merge. It acts once on a model.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from peftsearch.backbone.anatomy import Block
from peftsearch.methods.method import Attachment
from peftsearch.methods.prompt import Prompt, PromptVectors, enter_and_leave

HIDDEN = 16
"""Hidden width of the encoder."""


class EncodedPrompt(PromptVectors):
    """A prompt behind an encoder."""

    def __init__(self, words: nn.Embedding, length: int) -> None:
        super().__init__(words, length)
        nn.init.normal_(self.embedding)
        width = self.embedding.shape[1]
        self.encoder = nn.Sequential(
            nn.Linear(width, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, width)
        )

    def vectors(self) -> torch.Tensor:
        """The prompt `(l, e)`, out of the encoder."""
        encoded: torch.Tensor = self.encoder(self.embedding)
        return encoded


@dataclass(frozen=True, kw_only=True, slots=True)
class PTuning(Prompt):
    """A prompt out of a small encoder, which is dropped after training."""

    name: str = "ptuning"
    paper: str = "2103.10385, sec. 3.2"
    lr_scale: float = 3.0
    becomes: str = "prompt"

    def count(self, block: Block, size: int) -> int:
        """The pseudo-tokens l e and the encoder's three layers."""
        width = self.changed(block, 1)
        return size * width + (width * HIDDEN + HIDDEN) + (HIDDEN * HIDDEN + HIDDEN) + (HIDDEN * width + width)

    def reduced_size(self, block: Block, size: int) -> int:
        """The length stays."""
        return size

    def reduced(self, module: nn.Module, block: Block) -> dict[str, torch.Tensor]:
        """The vectors as `prompt` holds them."""
        assert isinstance(module, EncodedPrompt), "the module is of this method"
        return {"embedding": module.vectors()}

    def attach(self, model: nn.Module, block: Block, size: int) -> Attachment:
        """Put an encoded prompt of length `size` in front of the model's input."""
        assert block.words is not None, "the obstacle was looked at"
        words = model.get_submodule(block.words.path)
        assert isinstance(words, nn.Embedding), "detection looked at it"
        module = EncodedPrompt(words, size)
        return Attachment(module=module, undo=enter_and_leave(model, block, module))
