"""What a model does on a split: a loss for every example, and the task's metric."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """What a model does on a split."""

    losses: tuple[float, ...]
    """Loss of each example: cross-entropy, squared error of the standardised target, or the negative log-likelihood of
    a completion, weighted so that the mean is that of a token."""
    score: float | None = None
    """The task's metric; None if only the losses were asked for."""
    right: Sequence[float] = ()
    """For accuracy whether each prediction is right; for generation the numbers of `score_pairs`; for other metrics
    empty."""

    @property
    def loss(self) -> float:
        """Mean loss."""
        return sum(self.losses) / len(self.losses)
