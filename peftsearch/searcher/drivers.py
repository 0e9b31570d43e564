"""Drivers, which run the schedule of a study to its end; every step is decided from the stored history.

A search that is killed at any moment and started again continues where it stopped: completed trials are neither lost
nor repeated, and interrupted ones are rerun with the same design and seed.
"""

from __future__ import annotations

import time
from typing import Protocol

from peftsearch.engine.local import LocalEngine
from peftsearch.searcher.runner import TrialRunner
from peftsearch.searcher.schedule import Pause, Schedule

_PAUSE_S = 0.5
"""Seconds between two checks for work while trials of other processes must finish first."""


class Driver(Protocol):
    """Run a schedule to its end: one trial at a time in this process, or many in parallel elsewhere."""

    width: int
    """Number of trials at a time."""

    def drive(self, schedule: Schedule, runner: TrialRunner) -> None:
        """Claim, train and record trials until none is left."""


class LocalDriver:
    """Run trials one after the other in this process.

    Args:
        engine: Engine that trains the trials.
    """

    width = 1

    def __init__(self, engine: LocalEngine) -> None:
        self._engine = engine

    def drive(self, schedule: Schedule, runner: TrialRunner) -> None:
        """Claim, train and record trials until none is left; wait while trials of other processes must finish first."""
        while (work := schedule.next()) is not None:
            if isinstance(work, Pause):
                time.sleep(_PAUSE_S)
            else:
                runner.run(work, self._engine)
