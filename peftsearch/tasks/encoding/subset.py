"""Some of a split's examples, in the form of a split."""

from __future__ import annotations

from random import Random

import torch

from peftsearch.tasks.encoding.encoded import EncodedSplit
from peftsearch.tasks.encoding.spans import EncodedSpans
from peftsearch.tasks.kinds import Answers

_SEED = 0


class Subset:
    """The examples of a split at some positions.

    Args:
        split: The split.
        indices: Positions in it, in the order of the subset.
    """

    def __init__(self, split: EncodedSplit, indices: list[int]) -> None:
        self._split = split
        self.indices = indices
        """Positions in the whole split."""

    @property
    def labels(self) -> Answers:
        """Those of the examples, as in the whole split."""
        every = self._split.labels
        return [every[i] for i in self.indices]  # type: ignore[return-value]  # of the kind of `every`

    def __len__(self) -> int:
        """The number of examples."""
        return len(self.indices)

    def length(self, index: int) -> int:
        """Length of an example, as in the whole split."""
        return self._split.length(self.indices[index])

    def collate(self, indices: list[int]) -> dict[str, torch.Tensor]:
        """Put the examples at `indices` of the subset into one batch."""
        return self._split.collate([self.indices[i] for i in indices])


def at_most(split: EncodedSplit, n: int) -> EncodedSplit:
    """The split itself, or n of its examples: the same ones every time, and among those of any larger n."""
    if len(split) <= n:
        return split
    order = list(range(len(split)))
    Random(_SEED).shuffle(order)
    chosen = sorted(order[:n])
    # Answers are read from the contexts, which a subset of any split does not have.
    return split.take(chosen) if isinstance(split, EncodedSpans) else Subset(split, chosen)
