"""A method of parameter-efficient fine-tuning: its facts and its arithmetic, which need no torch.

Every method is one file in this folder, one of its layers in `peftsearch.methods.layers`, and one line in the table of
`peftsearch.methods`. The file here states the paper and the equation, where the method acts, its one size knob and the
range of it, the exact count, whether it merges into the weights, and its initialisation. Only functions that touch a
model need torch (`attach`; see `abilities` for `share` and `reduced`): they import the layers when they are called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from peftsearch.backbone.anatomy import Block

if TYPE_CHECKING:
    from torch import nn

    from peftsearch.methods.layers.attachment import Attachment


class Method(Protocol):
    """One method; stateless, so that one instance serves every block and model."""

    @property
    def name(self) -> str:
        """Its name in YAML files and on the command line: `lora`."""

    @property
    def paper(self) -> str:
        """ArXiv id and where in the paper: `2106.09685, eq. 3`."""

    @property
    def places(self) -> str:
        """Where in a block it acts, in a few words."""

    @property
    def knob(self) -> str:
        """The kind of its size: `rank`, `width`, `length`, `subset`."""

    @property
    def merges(self) -> bool:
        """Whether it can be folded into the backbone's weights for inference; its hooks are `Foldable` then."""

    @property
    def changes(self) -> str:
        """Which parameters of the backbone change: `whole matrices`, `the biases`, `none (added)`."""

    @property
    def exact_at_init(self) -> bool:
        """Whether the model's output is unchanged directly after injection."""

    @property
    def lr_scale(self) -> float:
        """Its learning rate as a multiple of the run's: methods need rates that differ by an order of magnitude."""

    def obstacle(self, block: Block) -> str | None:
        """Say why the method cannot act on this block; None when it can."""

    def max_size(self, block: Block) -> int:
        """The largest size that makes sense on this block; the smallest is 1."""

    def count(self, block: Block, size: int) -> int:
        """Trainable parameters at this size, exactly; it grows strictly with the size."""

    def changed(self, block: Block, size: int) -> int:
        """Parameters in which the result differs from the pretrained model: those of the backbone whose value is
        another one after merging, or those that are added and kept. LoRA trains few and changes whole matrices.
        """

    def label(self, block: Block, size: int) -> str:
        """The size as a person reads it: `r=4`, `query+ffn_in`."""

    def attach(self, model: nn.Module, block: Block, size: int) -> Attachment:
        """Put freshly initialised parameters of this size on the block, from torch's global generator."""
