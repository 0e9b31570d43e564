"""Ray Tune's view of a study: a searcher that suggests and records trials, and a scheduler that prunes them."""

from __future__ import annotations

from typing import Any

import optuna
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from peftsearch.engine.job import Outcome
from peftsearch.errors import InternalError, StudyError
from peftsearch.searcher.runner import TrialRunner, pruned_at, settle
from peftsearch.searcher.schedule import Pause, Schedule
from peftsearch.searcher.work import Work
from peftsearch.study.private_optuna import heartbeat


class StudySearch(Searcher):  # type: ignore[misc]  # ray ships no complete types
    """Suggest trials from the schedule of a study, and record them with its runner.

    The schedule decides what comes next, because a study has baselines, stages that must close, and a confirmation;
    Tune's own `OptunaSearch` would create a separate study.

    Args:
        schedule: Schedule that hands out the work.
        runner: Runner that records the results.
    """

    def __init__(self, schedule: Schedule, runner: TrialRunner) -> None:
        super().__init__(metric="score", mode="max")
        self._schedule = schedule
        self._runner = runner
        self._works: dict[str, tuple[Work, Any]] = {}
        self.pruned: dict[str, str] = {}
        """Reasons for pruning, by Tune's trial id."""
        self.fault: BaseException | None = None
        """Fault that ended the study: of the storage, of the disk, or because no trial has a score."""

    def work(self, trial_id: str) -> Work:
        """The work of a running trial."""
        return self._works[trial_id][0]

    def suggest(self, trial_id: str) -> Any:
        """Claim the next job; None to wait, `FINISHED` when nothing is left."""
        if self.fault is not None:
            return Searcher.FINISHED
        try:
            work = self._schedule.next()
        except Exception as error:  # the driver raises it again, where it becomes one line
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
        """Do nothing: the pruner has already seen the result."""

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Record the end of a trial."""
        work, beat = self._works.pop(trial_id)
        beat.join()
        if self.fault is not None:
            if isinstance(self.fault, InternalError):  # not a loss of this trial, which is rerun once it is fixed
                self._runner.lose(work, "stopped by a defect in another trial", by_user=True)
            return
        try:
            if trial_id in self.pruned:
                self._runner.prune(work, self.pruned.pop(trial_id))
            elif error or result is None:
                self._runner.lose(work, "its worker died")
            elif "defect" in result:
                self._runner.lose(work, result["defect"], by_user=True)
                self.fault = InternalError(result["defect"])
                self.fault.__cause__ = RuntimeError(result["traceback"])  # of the worker, for --debug
            elif "failed" in result:
                self._runner.fail(work, result["failed"])
            else:
                self._complete(work, result["outcome"])
        except Exception as fault:  # for example a full disk or a lost database
            self.fault = fault

    def _complete(self, work: Work, outcome: Outcome) -> None:
        """Record an outcome; if it cannot be recorded, such as a score that is not a number, the trial fails."""
        try:
            self._runner.complete(work, outcome)
        except (StudyError, OSError, optuna.exceptions.OptunaError):
            raise
        except Exception as error:
            settle(self._runner, work, error)

    def interrupt(self) -> None:
        """Record that the user stopped all running trials, which does not count as a loss."""
        for work, _ in self._works.values():
            self._runner.lose(work, "stopped by the user", by_user=True)

    def close(self) -> None:
        """Stop the heartbeats of trials that are still running."""
        for _, beat in self._works.values():
            beat.join()

    def save(self, checkpoint_path: str) -> None:
        """Write an empty file, because the study is the record."""
        with open(checkpoint_path, "wb"):
            pass

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing, because the study is the record."""

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its searcher for a restart that never happens here


class StudyPruner(FIFOScheduler):  # type: ignore[misc]  # ray ships no complete types
    """Stop trials when the study's pruner (ASHA, median, ...) says so, based on the study's history.

    Args:
        search: Searcher that holds the study's running trials.
    """

    def __init__(self, search: StudySearch) -> None:
        super().__init__()
        self._search = search

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Report an intermediate score; stop the trial if the pruner says so."""
        work = self._search.work(trial.trial_id)
        if not work.prunable:
            return str(TrialScheduler.CONTINUE)
        try:
            reason = pruned_at(work.trial, result["opt_step"], result["score"])
        except optuna.exceptions.UpdateFinishedTrialError:
            reason = "declared lost by another process"
        except Exception as fault:
            self._search.fault = fault
            return str(TrialScheduler.STOP)
        if reason is None:
            return str(TrialScheduler.CONTINUE)
        self._search.pruned[trial.trial_id] = reason
        return str(TrialScheduler.STOP)
