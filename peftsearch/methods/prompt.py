"""Prompt tuning: trained embeddings in front of the input (arXiv 2104.08691).

Sec. 2: [P; X] with P in R^(l x e), e the width of the word embeddings. The prompt is inserted where the model looks up
its words, so that it has positions and passes through all blocks. It is removed after the last block, so that pooler,
head and loss see the text alone, with the first and the last token in their places. It acts once per model. The size is
the length l, from 1 to 100 (sec. 3.2 finds little gain beyond 20); l e parameters. It starts from embeddings of random
words (sec. 3.2, "sampled vocabulary"), so the output changes at init. It does not merge.

Generation works with and without a cache: the first pass inserts the prompt, the cache keeps it, later passes shift
positions and mask.

Left out: models of two stacks, and models whose input is not words.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from peftsearch.backbone.anatomy import Block
from peftsearch.methods.added import Added, find_wide_obstacle

if TYPE_CHECKING:
    from torch import nn

    from peftsearch.methods.layers.attachment import Attachment

MAX_LENGTH = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class Prompt(Added):
    """Trained embeddings in front of the input, once per model."""

    name: str = "prompt"
    paper: str = "2104.08691, sec. 2"
    places: str = "in front of the input, once per model"
    lr_scale: float = 20.0
    lr_follows_size: bool = False
    knob: str = "length"
    exact_at_init: bool = False
    model_wide: Literal[True] = True

    def obstacle(self, block: Block) -> str | None:
        """Say that the model has two stacks, reads no words or runs one block several times; None where it does not."""
        return find_wide_obstacle(block, lost="last one", instead="prefix or lora")

    def max_size(self, block: Block) -> int:
        """100 tokens."""
        return MAX_LENGTH

    def count(self, block: Block, size: int) -> int:
        """The length times the width of an embedding: l e."""
        return size * _width(block)

    def label(self, block: Block, size: int) -> str:
        """The length: `l=8`."""
        return f"l={size}"

    def attach(self, model: nn.Module, block: Block, size: int) -> Attachment:
        """Put a prompt of length `size` in front of the model's input."""
        from peftsearch.methods.layers.prompt import attach

        return attach(model, block, size)


def _width(block: Block) -> int:
    return 0 if block.words is None else block.words.width
