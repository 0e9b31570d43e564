"""A view of a study for samplers and pruners, with some of its trials hidden."""

from __future__ import annotations

from collections.abc import Callable, Container

from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState


class StudyView(Study):
    """A study that shares storage, cache and identity with another, but shows only the visible trials.

    Args:
        study: The study to view.
        visible: Whether a trial is shown.
    """

    def __init__(self, study: Study, visible: Callable[[FrozenTrial], bool]) -> None:
        self.__dict__.update(study.__dict__)  # not `super().__init__`, which reads the storage
        self._visible = visible

    def _get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None, use_cache: bool = False
    ) -> list[FrozenTrial]:
        return [t for t in super()._get_trials(deepcopy, states, use_cache) if self._visible(t)]
