"""Methods that add modules and change no weight of the backbone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from peftsearch.backbone.anatomy import Block


@dataclass(frozen=True, kw_only=True, slots=True)
class Added(ABC):
    """A method that adds modules next to the backbone; by default it can act on any block."""

    merges: bool = False
    changes: str = "none (added)"
    exact_at_init: bool = True

    def obstacle(self, block: Block) -> str | None:
        """None: it acts on every block."""
        return None

    @abstractmethod
    def count(self, block: Block, size: int) -> int:
        """Trainable parameters at this size."""

    def changed(self, block: Block, size: int) -> int:
        """The added parameters; the backbone is unchanged."""
        return self.count(block, size)


def find_wide_obstacle(block: Block, *, lost: str, instead: str) -> str | None:
    """Say why a model-wide method cannot act: it needs a single stack that reads words and does not share its blocks.

    Args:
        block: Any block of the model.
        lost: The part that a model with one block run several times lacks.
        instead: The methods to use there.

    Returns:
        The reason; None where the method can act.
    """
    if block.n_uses > 1:
        return f"{block.path} is run {block.n_uses} times, which leaves no {lost}; use {instead} there"
    if block.words is None:
        return f"{block.path} is in a model of two stacks or without words; use {instead} there"
    return None
