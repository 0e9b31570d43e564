"""Optional abilities of a method or its module, each a protocol that is checked with isinstance.

A method needs none of them if it acts on each block separately, trains the parameters it made in `attach`, and has
nothing left to do when training ends.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

from peftsearch.backbone.anatomy import Block, Projection
from peftsearch.methods.method import Method

if TYPE_CHECKING:
    import torch
    from torch import nn


@runtime_checkable
class ModelWide(Protocol):
    """A method that acts once per model, from the first block, with the shares of all blocks whose groups name it."""

    model_wide: Literal[True]


@runtime_checkable
class Sharing(Protocol):
    """A method whose placements share parameters, counted with the placement nearest to the input."""

    @property
    def per_group(self) -> bool:
        """Whether the blocks of each group (of one stack) share among themselves, all at one size, or all blocks."""

    def n_shared(self, block: Block, size: int) -> int:
        """Number of shared parameters; the same at every size unless the sharing is `per_group`."""

    def share(self, first: nn.Module, module: nn.Module) -> None:
        """Replace a module's own copy of the shared parameters with those of the first placement's module."""


@runtime_checkable
class Mixed(Protocol):
    """A method made of others, each trained at its own rate; its module is a `ModuleDict` keyed by their names."""

    parts: tuple[Method, ...]


@runtime_checkable
class Foldable(Protocol):
    """A hook module whose effect can be folded into the parameters of the hooked module."""

    def fold(self, module: nn.Module) -> dict[str, torch.Tensor] | None:
        """Compute the parameters that give the module alone the output of module and hook together.

        Args:
            module: The hooked module; left unchanged.

        Returns:
            The new values by parameter name; None where the parameters are packed and cannot be added to.
        """


@runtime_checkable
class FoldAware(Protocol):
    """A `Foldable` with a second hook on its module; the second hook does nothing while the effect is folded in."""

    is_folded: bool
    """Set by `peftsearch.injection.merging.merged` while the effect is folded in."""


@runtime_checkable
class Primed(Protocol):
    """A module that selects the weights to train by the gradients of a few batches, before training.

    `peftsearch.prime` drives it: `watch`, then for every batch a forward, a backward and `record`, then `choose` and
    `drop`.
    """

    def watch(self) -> None:
        """Make every candidate weight take gradients."""

    def record(self) -> None:
        """Accumulate the gradients of one batch, and clear them."""

    def choose(self) -> None:
        """Keep the candidates with the highest scores."""

    def drop(self) -> None:
        """Free everything that only priming needs, whether or not a choice was made."""


@runtime_checkable
class Penalised(Protocol):
    """A module that adds a penalty to the loss of every training step."""

    def penalty(self) -> torch.Tensor:
        """A loss `()`."""


@runtime_checkable
class Routed(Protocol):
    """A module that draws a random path in training; a consistency loss ties two forwards of a batch together."""

    is_routed: Literal[True]


@runtime_checkable
class Reducible(Protocol):
    """A method with parts that only training needs; after training each placement becomes one of a smaller method."""

    becomes: str
    """Name of the smaller method."""

    def reduced_size(self, block: Block, size: int) -> int:
        """Size of the placement as one of the smaller method."""

    def reduced(self, module: nn.Module, block: Block) -> dict[str, torch.Tensor]:
        """Parameters and buffers of the smaller method's module, by name."""


@runtime_checkable
class Borrowing(Protocol):
    """A `Reducible` method whose modules are made from a file of the user; saving reduces them, to load without it."""

    borrows: Literal[True]


@runtime_checkable
class OnProjections(Protocol):
    """A method that acts on linear maps of a block which it names."""

    def projections(self, block: Block) -> dict[str, Projection]:
        """The maps, by name."""


def whole_matrices(method: Method, block: Block) -> dict[str, int]:
    """Number of weights of each matrix that a method changes as a whole, by the map's name."""
    assert isinstance(method, OnProjections), f"{method.name} names its maps"
    return {name: p.d_in * p.d_out for name, p in method.projections(block).items()}


def is_placed(method: Method, block: Block, first: Block) -> bool:
    """Whether a method has a placement on this block; a `ModelWide` method has one on the first block only."""
    return block is first or not isinstance(method, ModelWide)


def sharing_key(method: Method, stack: str, group: int) -> Hashable:
    """What the placements have in common that share parameters, if the method is `Sharing`.

    Args:
        method: The method.
        stack: Stack of the placement's block.
        group: Group of the placement.
    """
    per_group = isinstance(method, Sharing) and method.per_group
    return (method.name, stack, group) if per_group else method.name


def count_placed(method: Method, block: Block, size: int, is_first: bool) -> int:
    """Trainable parameters of a placement.

    Args:
        method: The method.
        block: Where it is placed.
        size: Its size.
        is_first: Whether it is the first of the placements that share parameters, which includes these.
    """
    shared = method.n_shared(block, size) if is_first and isinstance(method, Sharing) else 0
    return method.count(block, size) + shared
