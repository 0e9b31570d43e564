"""What a method of parameter-efficient fine-tuning is: its facts, its arithmetic and its attachment to a block.

Every method is one file in this folder and one line in the table of `peftsearch.methods`. A file states the paper
and the equation, where the method acts, its one size knob and the range of it, the exact count, whether it merges
into the weights, and its initialisation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from torch import nn

from peftsearch.backbone.anatomy import Block


@dataclass(kw_only=True, slots=True)
class Attachment:
    """What `attach` leaves in the model: the new parameters, and how to take the method out again."""

    module: nn.Module
    """Holds the method's trainable parameters and nothing else."""
    undo: list[Callable[[], object]] = field(default_factory=list)
    """Called in reverse order by `remove`; after them the model is as it was."""


class Method(Protocol):
    """One method; stateless, so that one instance serves every block and model."""

    @property
    def name(self) -> str:
        """What YAML files and the command line call it: `lora`."""

    @property
    def paper(self) -> str:
        """ArXiv id and where in the paper: `2106.09685, eq. 3`."""

    @property
    def places(self) -> str:
        """Where in a block it acts, in a few words."""

    @property
    def knob(self) -> str:
        """What its size is: `rank`, `width`, `length`, `subset`."""

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
