"""Ray Tune's view of a study: what it runs next, what it stops, and where it records."""

from __future__ import annotations

from typing import Any

import optuna
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from peftsearch.engine.job import Outcome
from peftsearch.errors import InternalError, StudyError, internal_error, is_defect, one_line
from peftsearch.searcher.runner import TrialRunner, Work, pruned_at
from peftsearch.searcher.schedule import Pause, Schedule
from peftsearch.study.private_optuna import heartbeat


class StudySearch(Searcher):  # type: ignore[misc]  # ray ships no complete types
    """Ray Tune's view of a study: the schedule suggests, and the runner records.

    The schedule decides what is asked for next, since a study has baselines, stages that have to close, and a
    confirmation; Tune's own `OptunaSearch` would make a study of its own.

    Args:
        schedule: Hands out the work.
        runner: Records what came of it.
    """

    def __init__(self, schedule: Schedule, runner: TrialRunner) -> None:
        super().__init__(metric="score", mode="max")
        self._schedule = schedule
        self._runner = runner
        self._works: dict[str, tuple[Work, Any]] = {}
        self.pruned: dict[str, str] = {}
        """Reason by Tune's trial id."""
        self.fault: BaseException | None = None
        """What ended the study: of the storage, of the disk, or no score at all."""

    def work(self, trial_id: str) -> Work:
        """What a running trial trains."""
        return self._works[trial_id][0]

    def suggest(self, trial_id: str) -> Any:
        """The next job; None to wait, `FINISHED` when nothing is left."""
        if self.fault is not None:
            return Searcher.FINISHED
        try:
            work = self._schedule.next()
        except Exception as error:  # raised again in the driver, where it becomes one line
            self.fault = error
            return Searcher.FINISHED
        if work is None:
            return Searcher.FINISHED
        if isinstance(work, Pause):
            return None
        beat = heartbeat(work.study, work.trial)
        beat.start()
        self._works[trial_id] = work, beat
        return {"job": work.job}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Nothing: the pruner has seen it."""

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Record how a trial ended."""
        work, beat = self._works.pop(trial_id)
        beat.join()
        if self.fault is not None:
            return
        try:
            if trial_id in self.pruned:
                self._runner.prune(work, self.pruned.pop(trial_id))
            elif error or result is None:
                self._runner.lose(work, "its worker died")
            elif "defect" in result:
                self._runner.lose(work, result["defect"], by_user=True)
                self.fault = InternalError(result["defect"])
            elif "failed" in result:
                self._runner.fail(work, result["failed"])
            else:
                self._complete(work, result["outcome"])
        except Exception as fault:  # a full disk, a lost database
            self.fault = fault

    def _complete(self, work: Work, outcome: Outcome) -> None:
        """Record an outcome; one that cannot be, such as a score that is no number, is its trial's own fault."""
        try:
            self._runner.complete(work, outcome)
        except (StudyError, OSError, optuna.exceptions.OptunaError):
            raise
        except Exception as error:
            if is_defect(error):
                raise internal_error(error) from error
            self._runner.fail(work, f"{type(error).__name__}: {one_line(error)}")

    def interrupt(self) -> None:
        """Record that the user stopped all trials that are running, which is no reason ever to give one up."""
        for work, _ in self._works.values():
            self._runner.lose(work, "stopped by the user", by_user=True)

    def close(self) -> None:
        """End the signs of life of trials that are still running."""
        for _, beat in self._works.values():
            beat.join()

    def save(self, checkpoint_path: str) -> None:
        """An empty file: the study is the record."""
        with open(checkpoint_path, "wb"):
            pass

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the study is the record."""

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles what it is given, for a restart of its own that never comes


class StudyPruner(FIFOScheduler):  # type: ignore[misc]  # ray ships no complete types
    """Stops trials as the study's own pruner (ASHA, median, ...) says, from the study's own history.

    Args:
        search: Knows the study's trials.
    """

    def __init__(self, search: StudySearch) -> None:
        super().__init__()
        self._search = search

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Report an intermediate score; stop where the pruner says so."""
        work = self._search.work(trial.trial_id)
        if not work.prunable:
            return str(TrialScheduler.CONTINUE)
        try:
            reason = pruned_at(work.trial, result["opt_step"], result["score"])
        except optuna.exceptions.UpdateFinishedTrialError:
            reason = "taken for lost by another process"
        except Exception as fault:
            self._search.fault = fault
            return str(TrialScheduler.STOP)
        if reason is None:
            return str(TrialScheduler.CONTINUE)
        self._search.pruned[trial.trial_id] = reason
        return str(TrialScheduler.STOP)
