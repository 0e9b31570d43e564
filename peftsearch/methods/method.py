"""The interface of a fine-tuning method: its facts and its arithmetic, without torch.

Every method is one file in this folder, one file of its layers in `peftsearch.methods.layers`, and one line in the
table of `peftsearch.methods`. The file here states the paper and the equation, where the method acts, its one size knob
with its range, the exact count, whether it merges into the weights, and its initialisation. Only functions that touch a
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
        """Name in YAML files and on the command line: `lora`."""

    @property
    def paper(self) -> str:
        """ArXiv id and place in the paper: `2106.09685, eq. 3`."""

    @property
    def places(self) -> str:
        """Where in a block the method acts, in a few words."""

    @property
    def knob(self) -> str:
        """The kind of size: `rank`, `width`, `length`, `subset`."""

    @property
    def merges(self) -> bool:
        """Whether the method can be folded into the backbone's weights for inference; its hooks are then `Foldable`."""

    @property
    def changes(self) -> str:
        """Which parameters of the backbone change: `whole matrices`, `the biases`, `none (added)`."""

    @property
    def exact_at_init(self) -> bool:
        """Whether the model's output is unchanged directly after injection."""

    @property
    def lr_scale(self) -> float:
        """Learning rate as a multiple of the base rate, at `injection.rates.REFERENCE_SIZE` parameters a block.

        Methods need rates that differ by an order of magnitude.
        """

    @property
    def lr_follows_size(self) -> bool:
        """Whether the rate falls with the number of parameters that the block trains."""

    def obstacle(self, block: Block) -> str | None:
        """Say why the method cannot act on this block; None when it can."""

    def max_size(self, block: Block) -> int:
        """The largest size that makes sense on this block; the smallest is 1."""

    def count(self, block: Block, size: int) -> int:
        """Exact number of trainable parameters at this size; strictly increasing in the size."""

    def changed(self, block: Block, size: int) -> int:
        """Number of parameters in which the result differs from the pretrained model.

        These are the backbone's parameters that merging changes, or the added ones that are kept. LoRA trains few
        parameters and changes whole matrices.
        """

    def label(self, block: Block, size: int) -> str:
        """The size in readable form: `r=4`, `query+ffn_in`."""

    def attach(self, model: nn.Module, block: Block, size: int) -> Attachment:
        """Add parameters of this size to the block, initialised from torch's global generator."""
