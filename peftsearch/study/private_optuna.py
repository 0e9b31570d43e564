"""The only module that uses private parts of Optuna, each behind a function that says why.

A study needs three things for which Optuna has no public API: acting on a trial of another process by its id, recording
and reading heartbeats while trials run by ask and tell, and showing a sampler only some of a study's trials.
`tests/study/test_private_optuna.py` checks each part and names its users when it breaks.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import Any

import numpy as np
import optuna
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

AnyTrial = optuna.Trial | FrozenTrial


def write_user_attribute(study: Study, trial: AnyTrial, key: str, value: Any) -> None:
    """Write a user attribute of any running trial; `Trial.set_user_attr` works only on trials of this process."""
    study._storage.set_trial_user_attr(trial._trial_id, key, value)


def write_system_attribute(study: Study, trial: AnyTrial, key: str, value: Any) -> None:
    """Write a system attribute, as Optuna's own samplers do while they sample; samplers do not get a `Trial`."""
    study._storage.set_trial_system_attr(trial._trial_id, key, value)


def stored_trial(study: Study, trial: AnyTrial) -> FrozenTrial:
    """Read a trial as it is stored now; a `Trial` knows only what this process has written."""
    return study._storage.get_trial(trial._trial_id)


def fail_trial(study: Study, trial: AnyTrial) -> None:
    """Fail a trial that another process began; `study.tell` needs its `Trial`.

    Raises:
        UpdateFinishedTrialError: The trial has ended in the meantime.
    """
    study._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)


def create_trial(study: Study, template: FrozenTrial) -> optuna.Trial:
    """Begin a trial with given parameters and attributes in one step.

    `enqueue_trial` and `ask` are two steps: a process killed between them leaves a waiting trial behind.
    """
    return optuna.Trial(study, study._storage.create_new_trial(study._study_id, template_trial=template))


def record_heartbeat(study: Study, trial: AnyTrial) -> None:
    """Record that a trial's process is alive; Optuna's public API does so only inside `study.optimize`."""
    study._storage.record_heartbeat(trial._trial_id)  # type: ignore[attr-defined]  # RDBStorage has it


def heartbeat(study: Study, trial: AnyTrial) -> Any:
    """Make a thread that records heartbeats of a trial: a context manager, also with `start` and `join`."""
    from optuna.storages._heartbeat import get_heartbeat_thread

    return get_heartbeat_thread(trial._trial_id, study._storage)


def silent_trials(study: Study) -> set[int]:
    """Numbers of the running trials whose last heartbeat is too old.

    The public `fail_stale_trials` would fail all of them, including those of slow but living processes on this host.
    """
    stale = set(study._storage._get_stale_trial_ids(study._study_id))  # type: ignore[attr-defined]  # RDBStorage has it
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    return {trial.number for trial in running if trial._trial_id in stale}


def non_domination_ranks(losses: np.ndarray, penalties: np.ndarray) -> list[int]:
    """Rank points by front, 0 for the first; `study.best_trials` gives only the first front.

    Args:
        losses: `(n, objectives)`, each to be minimised.
        penalties: `(n,)`, amount by which each point exceeds its constraints.
    """
    from optuna.study._multi_objective import _fast_non_domination_rank

    ranks: list[int] = _fast_non_domination_rank(losses, penalty=penalties).tolist()
    return ranks


class StudyView(Study):
    """A view of a study that shows only some of its trials to samplers and pruners, with the study's own storage.

    Samplers read trials through the private `_get_trials`. A public copy of the study would have to be rewritten for
    every suggestion, and would lack the intermediate values of running trials.

    Args:
        study: The study to show.
        visible: Whether a trial is shown.
    """

    def __init__(self, study: Study, visible: Callable[[FrozenTrial], bool]) -> None:
        self.__dict__.update(study.__dict__)  # not `super().__init__`, which reads the storage
        self._visible = visible

    def _get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None, use_cache: bool = False
    ) -> list[FrozenTrial]:
        return [t for t in super()._get_trials(deepcopy, states, use_cache) if self._visible(t)]
