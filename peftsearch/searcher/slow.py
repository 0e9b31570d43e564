"""Steps that became many times as slow as they were before the first trial."""

from __future__ import annotations

from collections.abc import Callable

_SLOW = 5.0
"""How many times as long a step takes when the user is told."""
_FEW = 5
"""Steps of a training below which their time says little."""


class SlowSteps:
    """Tell the user once that steps became slow, with the likely cause.

    Args:
        note: Tells the user a sentence.
    """

    def __init__(self, note: Callable[[str], None]) -> None:
        self._note = note
        self.expected_s = 0.0
        """Seconds of a step, as they were measured before the first trial; 0 if they were not."""
        self._told = False

    def look(self, name: str, train_s: float, n_steps: int) -> None:
        """Look at the time of a training.

        Args:
            name: Name of the design.
            train_s: Seconds in its steps.
            n_steps: Number of its steps.
        """
        if self._told or n_steps < _FEW or not self.expected_s or train_s <= _SLOW * self.expected_s * n_steps:
            return
        self._told = True
        self._note(
            f"A step of {name} took {1000 * train_s / n_steps:.0f} ms, and {1000 * self.expected_s:.0f} ms before the "
            "first trial: other processes may have taken the cores since; fewer threads wait less for one another (stop"
            " with Ctrl-C, and go on with the same command and --threads 1)"
        )
