"""The search: baselines, the strategy's trials, confirmation. Every step is decided from the stored history.

A search that is killed at any moment and started again goes on where it was: completed trials are neither lost nor
repeated, and interrupted ones are run anew with the same design and seed.
"""

from __future__ import annotations

import time
from typing import Protocol

from peftsearch.engine.local import LocalEngine
from peftsearch.searcher.runner import TrialRunner
from peftsearch.searcher.schedule import Pause, Schedule

_PAUSE_S = 0.5
"""Seconds between two looks for work while other processes' trials have to end first."""


class Driver(Protocol):
    """Runs a schedule to its end: trials one after the other here, or many at a time elsewhere."""

    width: int
    """Trials at a time."""

    def drive(self, schedule: Schedule, runner: TrialRunner) -> None:
        """Claim, train and record until nothing is left."""


class LocalDriver:
    """Trials one after the other in this process.

    Args:
        engine: Trains them.
    """

    width = 1

    def __init__(self, engine: LocalEngine) -> None:
        self._engine = engine

    def drive(self, schedule: Schedule, runner: TrialRunner) -> None:
        """Claim, train and record until nothing is left; wait where other processes' trials have to end first."""
        while (work := schedule.next()) is not None:
            if isinstance(work, Pause):
                time.sleep(_PAUSE_S)
            else:
                runner.run(work, self._engine)
