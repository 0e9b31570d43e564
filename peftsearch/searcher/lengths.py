"""How long trainings are: one schedule for all, its rungs, and how many examples validate each of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from peftsearch.samplers.strategy import SearchFidelity

EPOCHS = 3.0
"""Passes over the training split where neither epochs nor steps are asked for."""
BOUNDS = 150, 600
"""Fewest and most steps of a schedule that follows from the data alone."""
VALIDATION_SHARE = 0.15
"""Most steps' worth of time to spend on a validation, as a share of the steps before it."""
FEWEST_EXAMPLES = 200
"""Examples that every validation may use, however short the training."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Lengths:
    """The schedule of every training of a study."""

    steps: int
    """Optimizer steps of a whole training, per task."""
    rungs: tuple[int, ...]
    """Steps at which trials of the search pause, in ascending order."""
    epochs: float
    """Passes of a whole training over the training split of the largest task."""
    batch_size: int
    confirm: int
    """Optimizer steps of a training of the confirmation; more than `steps` in a run that was extended."""

    def n_validation(self, steps: int) -> int:
        """Most examples that validate a part of a training.

        A forward pass costs about half of a training step with as many examples, so that the share is kept.

        Args:
            steps: Steps of the part.
        """
        return max(FEWEST_EXAMPLES, ceil(2 * VALIDATION_SHARE * steps * self.batch_size))

    def n_steps(self, end: int, *, goes_on: bool) -> int:
        """Steps that a training up to `end` takes, without those of the rungs before it if it goes on from there."""
        return end - (max((rung for rung in self.rungs if rung < end), default=0) if goes_on else 0)

    def start_of(self, rung: int) -> int:
        """The step at which a trial begins a rung."""
        return self.rungs[rung - 1] if rung > 0 else 0


def choose_lengths(
    fidelity: SearchFidelity,
    *,
    n_train: Sequence[int],
    batch_size: int,
    steps: int | None = None,
    epochs: float | None = None,
    search_steps: int | None = None,
    confirm_steps: int | None = None,
) -> Lengths:
    """Choose the schedule.

    Args:
        fidelity: Shares of the schedule at which the strategy's trials pause.
        n_train: Training examples of each task.
        batch_size: Examples per step.
        steps: Steps of the schedule, if the user gives them.
        epochs: Passes over the largest training split, if the user gives them.
        search_steps: Step of the first rung, if the user gives it; later rungs below it are left out.
        confirm_steps: Steps of a training of the confirmation, if they differ from those of the search.
    """
    per_epoch = ceil(max(n_train) / batch_size)
    if steps is None:
        steps = ceil(EPOCHS * per_epoch) if epochs is None else max(1, ceil(epochs * per_epoch))
        steps = steps if epochs is not None else min(max(steps, BOUNDS[0]), BOUNDS[1])
    rungs = [max(1, min(steps, round(share * steps))) for share in fidelity.rungs]
    if search_steps is not None:
        first = min(search_steps, steps)
        rungs = [first, *(rung for rung in rungs[1:] if rung > first)]
    return Lengths(
        steps=steps,
        rungs=tuple(dict.fromkeys(rungs)),
        epochs=steps / per_epoch,
        batch_size=batch_size,
        confirm=confirm_steps or steps,
    )
