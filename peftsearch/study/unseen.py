"""The trials of a study that end while a process looks on."""

from __future__ import annotations

from collections.abc import Iterator

from optuna import Study
from optuna.trial import FrozenTrial

from peftsearch.study.folder import StudyFolder


class Unseen:
    """The trials of both studies of a folder that end from now on, in this process or another.

    Args:
        folder: The study.
    """

    def __init__(self, folder: StudyFolder) -> None:
        self._studies = (folder.search, folder.confirm)
        self._seen = {id(study): {t.number for t in _ended(study)} for study in self._studies}

    def take(self) -> Iterator[tuple[Study, FrozenTrial]]:
        """The trials that ended since the last call, each with its study."""
        for study in self._studies:
            seen = self._seen[id(study)]
            for trial in _ended(study):
                if trial.number not in seen:
                    seen.add(trial.number)
                    yield study, trial


def _ended(study: Study) -> list[FrozenTrial]:
    return [t for t in study.get_trials(deepcopy=False) if t.state.is_finished()]
