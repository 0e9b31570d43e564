"""Callbacks in the manner of Optuna: functions of a study and a trial that has just ended."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from optuna import Study
from optuna.trial import FrozenTrial

from peftsearch.searcher.progress import Reporter, TrialLine
from peftsearch.study.folder import StudyFolder
from peftsearch.study.trials import facts_of
from peftsearch.study.unseen import Unseen
from peftsearch.trainer.tracking import Log

Callback = Callable[[Study, FrozenTrial], None]


class CallbackFailed(BaseException):
    """An error of a callback, which is its cause; not an `Exception`, so that no trial takes it for its own."""


def tracker_callback(log: Log) -> Callback:
    """A callback that logs a trial: score, loss, parameters and seconds, under the name of its study."""

    def callback(study: Study, trial: FrozenTrial) -> None:
        facts, part = facts_of(trial), study.study_name.rpartition("/")[2]
        values = {
            "score": facts.score,
            "loss": facts.loss,
            "test_score": facts.test_score,
            "params": facts.n_params,
            "train_s": facts.train_s,
        }
        known = {f"{part}/{name}": float(value) for name, value in values.items() if value is not None}
        if known:
            log(known, trial.number)

    return callback


class Calling:
    """A reporter that calls functions for every trial that ends, of this process or another, and then passes it on.

    Args:
        reporter: Receiver of all events.
        folder: The study.
        callbacks: Functions to call; an error in one ends the search, which can be resumed.
    """

    def __init__(self, reporter: Reporter, folder: StudyFolder, callbacks: Sequence[Callback]) -> None:
        self._reporter = reporter
        self._callbacks = callbacks
        self._ended = Unseen(folder)

    def note(self, text: str) -> None:
        """Show a line that stays."""
        self._reporter.note(text)

    def start(self, n_steps: int, step_s: float) -> None:
        """Start the work of `n_steps` optimizer steps, at an expected `step_s` seconds per step."""
        self._reporter.start(n_steps, step_s)

    def phase(self, name: str, n_trials: int) -> None:
        """Start a phase."""
        self._reporter.phase(name, n_trials)

    def trial(self, line: TrialLine, n_steps: int) -> None:
        """Show a finished trial, and call the functions for all that ended since the last call."""
        self._reporter.trial(line, n_steps)
        for study, trial in self._ended.take():
            try:
                for callback in self._callbacks:
                    callback(study, trial)
            except Exception as error:  # a user's function may raise anything
                raise CallbackFailed from error

    def close(self) -> None:
        """End the work."""
        self._reporter.close()
