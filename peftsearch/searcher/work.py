"""A trial that a process has claimed."""

from __future__ import annotations

from dataclasses import dataclass

import optuna

from peftsearch.engine.job import Job
from peftsearch.searcher.progress import TrialLine
from peftsearch.study.trials import Phase


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """A trial that this process has claimed and will train."""

    study: optuna.Study
    trial: optuna.Trial
    phase: Phase
    name: str
    job: Job
    line: TrialLine
    """The trial as the display shows it, without its result."""

    @property
    def prunable(self) -> bool:
        """Whether the pruner may stop the trial."""
        return self.phase == Phase.SEARCH and len(self.study.directions) == 1

    @property
    def n_steps(self) -> int:
        """Steps that the job trains, on each task."""
        return self.job.end - int(self.trial.user_attrs.get("first") or 0)
