"""Prompt tuning: trained embeddings in front of the input (arXiv 2104.08691).

Sec. 2: [P; X] with P in R^(l x e), e the width of the word embeddings. The prompt goes in where the model looks up its
words, so that it has positions and passes all blocks; behind them it is taken off again, and what comes after (pooler,
head, loss) sees the text alone, the first and the last token where they were. It acts once on a model. The
size is the length l, from 1 to 100 (sec. 3.2 finds little beyond 20); l e parameters. It starts from embeddings of
random words (sec. 3.2, "sampled vocabulary"), so the output does change at init. It does not merge.

Generation works with and without a cache: the first pass puts the prompt in, the cache keeps it, later passes shift
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
    """Trained embeddings in front of the input, once a model."""

    name: str = "prompt"
    paper: str = "2104.08691, sec. 2"
    places: str = "in front of the input, once a model"
    lr_scale: float = 10.0
    knob: str = "length"
    exact_at_init: bool = False
    model_wide: Literal[True] = True

    def obstacle(self, block: Block) -> str | None:
        """It needs a model of one stack that reads words, and blocks of their own."""
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
