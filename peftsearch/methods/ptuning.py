"""P-tuning: a prompt whose embeddings a small encoder computes (arXiv 2103.10385).

Sec. 3.2 puts an encoder between the trained pseudo-tokens and the model, so that they do not move independently; after
training it is dropped and its output kept, and the placement becomes one of `prompt`. The encoder here is the
perceptron of HF peft (three layers, ReLU; the paper's is an LSTM with a perceptron) with a hidden width of h = 16: its
parameters are trained, so they count in the budget. The pseudo-tokens start as standard normals, as in HF peft and the
authors' code: word embeddings have small norms, and the encoder would map all of them to nearly the same vector. The
size is the length l, from 1 to 100; l e + (e h + h) + (h h + h) + (h e + e) parameters are trained, l e are kept. The
output changes at init. It does not merge. It acts once per model.
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
    """A prompt computed by a small encoder, which is dropped after training."""

    name: str = "ptuning"
    paper: str = "2103.10385, sec. 3.2"
    lr_scale: float = 6.0
    lr_follows_size: bool = False
    becomes: str = "prompt"

    def count(self, block: Block, size: int) -> int:
        """The pseudo-tokens l e and the encoder's three layers."""
        width = self.changed(block, 1)
        return size * width + (width * HIDDEN + HIDDEN) + (HIDDEN * HIDDEN + HIDDEN) + (HIDDEN * width + width)

    def changed(self, block: Block, size: int) -> int:
        """The embeddings that are kept: l e."""
        return Prompt().count(block, size)

    def reduced_size(self, block: Block, size: int) -> int:
        """The length, unchanged."""
        return size

    def reduced(self, module: nn.Module, block: Block) -> dict[str, torch.Tensor]:
        """The vectors as `prompt` holds them."""
        from peftsearch.methods.layers.ptuning import reduced

        return reduced(module)

    def attach(self, model: nn.Module, block: Block, size: int) -> Attachment:
        """Put an encoded prompt of length `size` in front of the model's input."""
        from peftsearch.methods.layers.ptuning import attach

        return attach(model, block, size, HIDDEN)
