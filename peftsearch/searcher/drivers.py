"""Drivers, which run the schedule of a study to its end; every step is decided from the stored history.

A search that is killed at any moment and started again continues where it stopped: completed trials are neither lost
nor repeated, and interrupted ones are rerun with the same design and seed.
"""

from __future__ import annotations

import time
from typing import Protocol

import torch

from peftsearch.engine.local import LocalEngine
from peftsearch.searcher.crew import choose_width, crew, devices_of
from peftsearch.searcher.options import RunOptions
from peftsearch.searcher.runner import TrialRunner
from peftsearch.searcher.schedule import Pause, Schedule

_PAUSE_S = 0.5
"""Seconds between two checks for work while trials of other processes must finish first."""


class Driver(Protocol):
    """Run a schedule to its end: in this process, in several of this machine, or elsewhere."""

    width: int
    """Number of trials at a time."""

    def widen(self, seconds: float) -> bool:
        """Choose the number of trials at a time for work that takes one process so long; whether it changed."""

    def drive(self, schedule: Schedule, runner: TrialRunner, engine: LocalEngine) -> None:
        """Claim, train and record trials until none is left."""

    def close(self) -> None:
        """Give back what the driver holds."""


class LocalDriver:
    """Run trials in this process, one after the other, and in further processes beside it.

    Args:
        options: The options of the run.
        device: Where the model is.
        workers: Number of processes; None chooses it.
    """

    def __init__(self, options: RunOptions, device: torch.device, workers: int | None = None) -> None:
        self.width = 1
        self._options = options
        self._device = device
        self._workers = workers
        self._n_threads = torch.get_num_threads()

    def widen(self, seconds: float) -> bool:
        """Choose the number of processes, and share the threads among them."""
        before = self.width
        if before == 1:
            self.width = choose_width(self._workers, self._device, seconds)
            if self._device.type == "cpu":
                torch.set_num_threads(max(1, self._n_threads // self.width))
        return self.width != before

    def drive(self, schedule: Schedule, runner: TrialRunner, engine: LocalEngine) -> None:
        """Claim, train and record trials until none is left; wait while trials of other processes must finish first."""
        folder, storage = runner.folder.path, self._options.study.storage
        with crew(folder, devices_of(self._device, self.width - 1), storage) as failed:
            while (work := schedule.next()) is not None:
                runner.others.show()
                for line in failed():
                    runner.reporter.note(line)
                if isinstance(work, Pause):
                    time.sleep(_PAUSE_S)
                else:
                    runner.run(work, engine)
            runner.others.show()

    def close(self) -> None:
        """Take all threads again."""
        torch.set_num_threads(self._n_threads)
