"""A study on disk: the folder `runs/NAME/`, its settings, and its two Optuna studies.

`search` holds the baselines and the trials of the search, `confirm` the trainings at full fidelity. Both live in one
Optuna storage: `study.db` (SQLite) in the folder, or any storage URL. The folder belongs to one set of settings;
opening it with different ones is an error that names the first difference.

A killed process leaves its trial in the state RUNNING. A process that opens the folder, or looks for work in it, marks
such trials as failed and interrupted (`claims.py`): they count for nothing, and their designs are tried again.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import optuna
from filelock import FileLock, Timeout
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler

from peftsearch.errors import ConfigError, StudyError, one_line
from peftsearch.files import from_plain, read_yaml, to_plain, to_yaml, write_atomically
from peftsearch.study.claims import new_owner, release_dead
from peftsearch.study.notes import keep_settings, settings_of
from peftsearch.study.objectives import OBJECTIVES
from peftsearch.study.settings import SETTINGS, StudySettings, first_difference
from peftsearch.study.storage import (
    claim_lock,
    open_storage,
    own_url,
    quiet_optuna,
    require_database,
    storage_faults,
    study_prefix,
)

Direction = Literal["maximize", "minimize"]
_OWN_FILES = {".lock", ".claim", f".{SETTINGS}.part"}
"""Files that a killed process may leave in a folder that holds no study yet."""


class StudyFolder:
    """An open study.

    Args:
        path: The folder; created with its parents if it does not exist.
        settings: Settings of the study.
        storage: An Optuna storage URL; empty for SQLite in the folder. In a storage that several studies share, the
            name of each begins with the name of its folder and its id.
        options: The user's options, stored so that `--resume` and workers need only a name.
        extends: Whether the settings are those of the study with more trials, seeds, baselines or steps, which are then
            stored.
        shared: Whether to join a study that another process may be running; otherwise this process must be the only
            one, except for workers.

    Raises:
        StudyError: The folder belongs to other settings, is in use, is damaged or cannot be written.
    """

    def __init__(
        self,
        path: Path,
        settings: StudySettings,
        storage: str = "",
        options: Mapping[str, Any] | None = None,
        shared: bool = False,
        extends: bool = False,
    ) -> None:
        self.path = path
        self.settings = settings
        self.owner = new_owner()
        """Text that marks the trials of this process."""
        url = storage or own_url(path)
        quiet_optuna()
        with storage_faults(storage or path):
            check_settings(path, settings, extends=extends)
            if storage:
                self._storage = open_storage(url)  # before anything is written, since it may not answer
            path.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(path / ".lock", timeout=0)
            if not shared:
                self._acquire()
            if not (path / SETTINGS).exists():
                own = replace(settings, id=uuid.uuid4().hex[:12], options=dict(options or {}))
                write_atomically(path / SETTINGS, to_yaml(to_plain(own)))
            if not storage:
                self._storage = open_storage(url)
            self._claims = claim_lock(self._storage, path)
            stored = read_settings(path)
            # Options outside the settings may change from run to run; workers go by those of the last one.
            changed = not shared and bool(options) and (extends or stored.options != options)
            if changed:
                began = (stored.began or stored.options) if extends else stored.began
                new = settings if extends else stored
                stored = replace(new, id=stored.id, options=dict(options or {}), began=began)
                write_atomically(path / SETTINGS, to_yaml(to_plain(stored)))
            prefix = study_prefix(path.name, stored.id) if storage else ""
            self.search = self._open(f"{prefix}search", directions_of(settings))
            self.confirm = self._open(f"{prefix}confirm", ["maximize"])
            if changed or settings_of(self.search) is None:
                keep_settings(self.search, to_plain(stored))
            with self.claim():
                self.n_interrupted = self.release_dead()

    def use(self, sampler: BaseSampler, pruner: BasePruner) -> None:
        """Set the sampler and the pruner of the search."""
        self.search.sampler = sampler
        self.search.pruner = pruner

    @contextmanager
    def claim(self) -> Iterator[None]:
        """Hold the lock under which one process at a time looks for work, so that no work is claimed twice."""
        with self._claims:
            yield

    def release_dead(self) -> int:
        """Fail the trials that dead processes left running, and return their number; call it inside `claim`."""
        return release_dead(self.search, self.owner) + release_dead(self.confirm, self.owner)

    def lead(self) -> bool:
        """Try to become the one process that concludes the study; True on success."""
        try:
            self._lock.acquire()
        except Timeout:
            return False
        return True

    def close(self) -> None:
        """Close the storage and release the folder for other processes."""
        self._storage.remove_session()
        self._storage.engine.dispose()
        self._lock.release()

    def _acquire(self) -> None:
        if not self.lead():
            raise StudyError(f"{self.path}: another process is running this study; wait for it or stop it")

    def _open(self, name: str, directions: list[Direction]) -> optuna.Study:
        return optuna.create_study(
            study_name=name, storage=self._storage, directions=directions, load_if_exists=True, sampler=_no_sampler()
        )


def directions_of(settings: StudySettings) -> list[Direction]:
    """Directions of the objectives for Optuna: the score is maximised, every other objective minimised."""
    return [OBJECTIVES[name].direction for name in settings.objectives]


def _no_sampler() -> BaseSampler:
    return optuna.samplers.RandomSampler(seed=0)


def check_settings(path: Path, settings: StudySettings, *, extends: bool = False) -> bool:
    """Whether the folder already holds a study with these settings; changes nothing.

    Args:
        path: The folder.
        settings: The settings to compare.
        extends: Whether what an extension changes is left out of the comparison.

    Raises:
        StudyError: The folder holds something else.
    """
    if not path.exists():
        return False
    if not path.is_dir():
        raise StudyError(f"{path}: is not a folder; give another --name")
    if not (path / SETTINGS).exists():
        if any(item.name not in _OWN_FILES for item in path.iterdir()):
            raise StudyError(f"{path}: is not empty and holds no study; give another --name or remove it")
        return False
    stored = read_settings(path)
    if extends:
        stored = replace(stored, strategy=settings.strategy, confirm_steps=settings.confirm_steps)
    found = first_difference(to_plain(stored), to_plain(settings))
    if found is not None:
        key, there, here = found
        raise StudyError(
            f"{path}: was created with other settings: {key} is {_brief(there)} there and {_brief(here)} here; give "
            f"another --name, the same settings to resume, or more with `peftsearch extend {path}`"
        )
    return True


def read_settings(path: Path) -> StudySettings:
    """Read the settings of the study in a folder.

    Raises:
        StudyError: The folder holds no study, or its settings are damaged.
    """
    if not (path / SETTINGS).is_file():
        raise StudyError(f"{path}: holds no study (no {SETTINGS}); `peftsearch run` makes one")
    try:
        return from_plain(StudySettings, read_yaml(path / SETTINGS), str(path / SETTINGS))
    except ConfigError as error:
        raise StudyError(f"the settings of the study are damaged: {error}") from error


def fetch_settings(path: Path, url: str) -> None:
    """Create a study's folder from its storage, on a machine that cannot see the original folder.

    Raises:
        StudyError: The storage cannot be used, or holds no study or several studies of that name.
    """
    quiet_optuna()
    with storage_faults(url):
        require_database(url)
        storage = open_storage(url)
        try:
            settings = _only_settings(path, storage)
        finally:
            storage.remove_session()
            storage.engine.dispose()
        path.mkdir(parents=True, exist_ok=True)
        write_atomically(path / SETTINGS, to_yaml(settings))


def _only_settings(path: Path, storage: optuna.storages.RDBStorage) -> dict[str, Any]:
    """The settings of the one study of a folder's name in a storage."""
    names = [s.study_name for s in storage.get_all_studies()]
    own = [n for n in names if re.fullmatch(rf"{re.escape(path.name)}-[0-9a-f]{{12}}/search", n)]
    if len(own) != 1:
        known = sorted({n.rsplit("-", 1)[0] for n in names if n.endswith("/search")})
        what = "no study" if not own else f"{len(own)} studies"
        raise StudyError(
            f"{path}: does not exist, and the storage holds {what} of that name (it has {known or 'none'})"
        )
    settings = settings_of(optuna.load_study(study_name=own[0], storage=storage))
    if settings is None:
        raise StudyError(f"{path}: does not exist, and the storage does not hold its settings")
    return settings


def state_paths(folder: Path, name: str, seed: int, n_tasks: int = 1) -> list[Path]:
    """Paths of the trained parameters of one confirmation, one file per task, in the order of the tasks."""
    tasks = [""] if n_tasks == 1 else [f"-task{i + 1}" for i in range(n_tasks)]
    return [folder / "confirmed" / f"{_file_name(name)}-seed{seed}{task}.safetensors" for task in tasks]


def paused_paths(folder: Path, key: str, step: int, n_tasks: int = 1) -> list[Path]:
    """Paths of the snapshots of a paused training, one file per task.

    Args:
        folder: The study's folder.
        key: What tells the training from others.
        step: Step at which it paused.
        n_tasks: Number of tasks.
    """
    return [folder / "paused" / f"{key}-step{step}-task{i + 1}.bin" for i in range(n_tasks)]


def confirmed_seeds(folder: Path, name: str) -> list[int]:
    """Seeds of a confirmed design whose trained parameters are in the folder, in ascending order."""
    form = re.compile(rf"{re.escape(_file_name(name))}-seed(-?\d+)(-task1)?\.safetensors")
    found = (form.fullmatch(path.name) for path in (folder / "confirmed").glob("*.safetensors"))
    return sorted(int(match[1]) for match in found if match)


def _file_name(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-._" else "-" for c in name)


def _brief(value: object) -> str:
    return one_line("not set" if value is None else repr(value), 80)
