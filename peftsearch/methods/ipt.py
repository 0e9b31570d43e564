"""Intrinsic prompt tuning: a prompt in a subspace that the prompts of other tasks span (arXiv 2110.07867).

Sec. 3 has two phases. Multi-task subspace finding trains a prompt for each of many tasks, and an auto-encoder that
maps prompts in R^(l x e) to d_I numbers and back. Intrinsic subspace tuning freezes the decoder and tunes the d_I
numbers of a new task. `peftsearch subspace` makes the first phase's file, this method is the second phase.

P = m + sum_i z_i s_i b_i, with the mean m of the source prompts, orthonormal directions b_i by falling variance, and
the standard deviation s_i along each. z is trained and starts at zero, so the output changes at init. The paper's
decoder is a perceptron of two layers, trained with the loss of the source tasks too; here it is linear, the principal
directions: with few source tasks a perceptron has more weights than data, and the first d directions serve every d, so
that one file serves all sizes. The size is d, from 1 to the directions of the file; d parameters are trained. After
training the decoder is dropped and the prompt is one of `prompt`, l e parameters. It acts once per model, does not
merge.

Left out: what `prompt` leaves out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from peftsearch.backbone.anatomy import Block, Subspace
from peftsearch.methods.prompt import Prompt

if TYPE_CHECKING:
    import torch
    from torch import nn

    from peftsearch.methods.layers.attachment import Attachment


@dataclass(frozen=True, kw_only=True, slots=True)
class IPT(Prompt):
    """A prompt computed from a few coordinates in a subspace of prompts."""

    name: str = "ipt"
    paper: str = "2110.07867, sec. 3"
    lr_scale: float = 20.0
    knob: str = "coordinates"
    becomes: str = "prompt"
    borrows: Literal[True] = True

    def obstacle(self, block: Block) -> str | None:
        """Say that a prompt cannot act on the block, or that no subspace is given; None where it can."""
        found = Prompt.obstacle(self, block)
        if found is None and _subspace(block) is None:
            found = "has no subspace of prompts; make one with `peftsearch subspace` and give it with --subspace"
        return found

    def max_size(self, block: Block) -> int:
        """The number of directions of the subspace; 1 without one."""
        subspace = _subspace(block)
        return 1 if subspace is None else subspace.n_directions

    def count(self, block: Block, size: int) -> int:
        """One coordinate a direction: d."""
        return size

    def changed(self, block: Block, size: int) -> int:
        """The embeddings that are kept: l e."""
        return Prompt().count(block, self.reduced_size(block, size))

    def label(self, block: Block, size: int) -> str:
        """The number of coordinates: `d=8`."""
        return f"d={size}"

    def reduced_size(self, block: Block, size: int) -> int:
        """The length of the subspace's prompts."""
        subspace = _subspace(block)
        return 1 if subspace is None else subspace.length

    def reduced(self, module: nn.Module, block: Block) -> dict[str, torch.Tensor]:
        """The vectors as `prompt` holds them."""
        from peftsearch.methods.layers.ipt import reduced

        return reduced(module)

    def attach(self, model: nn.Module, block: Block, size: int) -> Attachment:
        """Put the mean prompt, with `size` coordinates that move it, in front of the model's input."""
        from peftsearch.methods.layers.ipt import attach

        return attach(model, block, size)


def _subspace(block: Block) -> Subspace | None:
    return None if block.words is None else block.words.subspace
