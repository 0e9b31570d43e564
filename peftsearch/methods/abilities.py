"""Abilities of a method or its module beyond `Method`: each a protocol that is asked for with isinstance.

A method that acts on blocks one by one, trains what it made at `attach`, and is done when training ends, needs none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

from peftsearch.backbone.anatomy import Block
from peftsearch.methods.method import Method

if TYPE_CHECKING:
    import torch
    from torch import nn


@runtime_checkable
class ModelWide(Protocol):
    """A method that acts once on a model: it is placed on the first block, whichever groups name it, and has the shares
    of all blocks of these groups.
    """

    model_wide: Literal[True]


@runtime_checkable
class Sharing(Protocol):
    """A method whose placements share parameters: they count with the first placement, input side first."""

    def n_shared(self, block: Block) -> int:
        """How many parameters are shared; of no size."""

    def share(self, first: nn.Module, module: nn.Module) -> None:
        """Put the shared parameters of the first placement's module in place of another module's own."""


@runtime_checkable
class Mixed(Protocol):
    """A method made of others, each of which trains at its own rate; its module is a `ModuleDict` by their names."""

    parts: tuple[Method, ...]


@runtime_checkable
class Foldable(Protocol):
    """A hook module whose effect can be folded into the parameters of the module that it hangs on."""

    def fold(self, module: nn.Module) -> dict[str, torch.Tensor] | None:
        """Work out the parameters with which the module alone does what module and hook do together.

        Args:
            module: The hooked module; it is left as it is.

        Returns:
            The new values by parameter name; None where the parameters are packed and cannot be added to.
        """


@runtime_checkable
class FoldAware(Protocol):
    """A `Foldable` with a second hook on its module, which rests while the module's parameters do its work."""

    is_folded: bool
    """Set by `peftsearch.injection.merging.merged` while the effect is folded in."""


@runtime_checkable
class Primed(Protocol):
    """A module that chooses what it trains by the gradients of a few batches, before training.

    `peftsearch.prime` drives it: `watch`, then for every batch a forward, a backward and `record`, then `choose` and
    `drop`.
    """

    def watch(self) -> None:
        """Make everything that could be chosen take gradients."""

    def record(self) -> None:
        """Take in the gradients of one batch, and clear them."""

    def choose(self) -> None:
        """Keep what scored highest."""

    def drop(self) -> None:
        """Let go of all that was made for looking at gradients, chosen or not."""


@runtime_checkable
class Penalised(Protocol):
    """A module that adds a penalty to the loss of every training step."""

    def penalty(self) -> torch.Tensor:
        """A loss `()`."""


@runtime_checkable
class Routed(Protocol):
    """A module that draws a path at random in training: two forwards of a batch are held together by a loss."""

    is_routed: Literal[True]


@runtime_checkable
class Reducible(Protocol):
    """A method of which a part serves training alone: after it a placement becomes one of a smaller method."""

    becomes: str

    def reduced_size(self, block: Block, size: int) -> int:
        """Its size as a placement of the smaller method."""

    def reduced(self, module: nn.Module, block: Block) -> dict[str, torch.Tensor]:
        """Parameters and buffers of the smaller method's module, by name."""


def is_placed(method: Method, block: Block, first: Block) -> bool:
    """Whether a method that acts on a block has its placement there: one that acts once has it on the first alone."""
    return block is first or not isinstance(method, ModelWide)


def count_placed(method: Method, block: Block, size: int, is_first: bool) -> int:
    """Trainable parameters of a placement.

    Args:
        method: The method.
        block: Where it is placed.
        size: Its size.
        is_first: Whether it is the method's first placement, with which what all of them share counts.
    """
    shared = method.n_shared(block) if is_first and isinstance(method, Sharing) else 0
    return method.count(block, size) + shared
