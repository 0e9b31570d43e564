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
from typing import TYPE_CHECKING

from peftsearch.backbone.anatomy import Block
from peftsearch.methods.prompt import Prompt

if TYPE_CHECKING:
    import torch
    from torch import nn

    from peftsearch.methods.layers.attachment import Attachment

HIDDEN = 16
"""Hidden width of the encoder."""


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

    def changed(self, block: Block, size: int) -> int:
        """The embeddings that are kept: l e."""
        return Prompt().count(block, size)

    def reduced_size(self, block: Block, size: int) -> int:
        """The length stays."""
        return size

    def reduced(self, module: nn.Module, block: Block) -> dict[str, torch.Tensor]:
        """The vectors as `prompt` holds them."""
        from peftsearch.methods.layers.ptuning import reduced

        return reduced(module)

    def attach(self, model: nn.Module, block: Block, size: int) -> Attachment:
        """Put an encoded prompt of length `size` in front of the model's input."""
        from peftsearch.methods.layers.ptuning import attach

        return attach(model, block, size, HIDDEN)
