"""A study as samplers and pruners may see it: some of its trials hidden, everything else as it is."""

from __future__ import annotations

from collections.abc import Callable, Container

from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState


class StudyView(Study):
    """Shares storage, cache and identity with a study, and shows those of its trials that `visible` says.

    Args:
        study: The study to look at.
        visible: Whether a trial is shown.
    """

    def __init__(self, study: Study, visible: Callable[[FrozenTrial], bool]) -> None:
        self.__dict__.update(study.__dict__)  # not `super().__init__`, which reads the storage
        self._visible = visible

    def _get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None, use_cache: bool = False
    ) -> list[FrozenTrial]:
        return [t for t in super()._get_trials(deepcopy, states, use_cache) if self._visible(t)]
