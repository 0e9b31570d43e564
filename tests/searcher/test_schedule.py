"""What the schedule answers while trials of other processes end."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import optuna

from peftsearch.searcher.schedule import PAUSE, Schedule


def test_a_confirmation_that_ends_while_the_history_is_read_does_not_end_the_run() -> None:
    """Its end is not in what was read, so that nothing is open yet; the next look at the history sees it."""
    study = optuna.create_study()
    other = study.ask()
    schedule: Any = object.__new__(Schedule)
    schedule._folder = SimpleNamespace(confirm=study)
    schedule._next_reference = lambda: None
    schedule.finalists = list

    def read(_: object) -> list[object]:
        if other.number in [t.number for t in study.get_trials(states=(optuna.trial.TrialState.RUNNING,))]:
            study.tell(other, 0.0)
        return []

    schedule._open_confirmations = read
    assert schedule._next_confirmation() is PAUSE
    assert schedule._next_confirmation() is None
