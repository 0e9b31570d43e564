"""A study on disk: the folder `runs/NAME/`, its settings, and its two Optuna studies.

`search` holds the baselines and the trials of the search, `confirm` the trainings at full fidelity. Both live in one
Optuna storage: `study.db` (SQLite) in the folder, or any storage URL. The folder belongs to one set of settings;
opening it with others is refused, naming the first difference.

What a killed process leaves behind is a trial in the state RUNNING. Opening the folder marks it as failed and
interrupted: it counts for nothing, and the samplers, which decide from what counts, propose the same design again.
"""

from __future__ import annotations

import errno
import logging
import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy.exc
import yaml
from filelock import FileLock, Timeout
from optuna.pruners import BasePruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler
from optuna.trial import TrialState
from sqlalchemy.engine import URL, make_url

from peftsearch.catalog import read_yaml
from peftsearch.errors import ConfigError, StudyError, one_line
from peftsearch.samplers.context import INTERRUPTED
from peftsearch.strategy import Strategy

SETTINGS = "settings.yaml"
_NOT_COMPARED = {"id", "options"}
"""Settings that every folder has its own of."""
_DISK_FAULTS = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EIO,
    errno.EACCES,
    errno.EPERM,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ENAMETOOLONG,
}
_OWN_FILES = {".lock", f".{SETTINGS}.part"}
"""What a kill may leave in a folder before it holds a study."""


class StudyFolder:
    """An open study.

    Args:
        path: The folder; made with its parents if it is not there.
        settings: What the study is about; plain YAML values.
        storage: An Optuna storage URL; empty for SQLite in the folder. In a storage that several studies share, each
            has its folder's name and id before its own.
        options: What the user asked for, kept so that `--resume` needs no more than a name.

    Raises:
        StudyError: The folder belongs to other settings, is in use, damaged or cannot be written.
    """

    def __init__(
        self, path: Path, settings: Mapping[str, Any], storage: str = "", options: Mapping[str, Any] | None = None
    ) -> None:
        self.path = path
        self.settings = dict(settings)
        own = URL.create("sqlite", database=str((path / "study.db").resolve()))
        url = storage or own.render_as_string(hide_password=False)
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        logging.getLogger("alembic").setLevel(logging.ERROR)
        with storage_faults(storage or path):
            check_settings(path, settings)
            if storage:
                self._storage = _open_storage(url)  # a storage that does not answer is said before anything is written
            path.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(path / ".lock", timeout=0)
            self._acquire()
            if not (path / SETTINGS).exists():
                identity = {"id": uuid.uuid4().hex[:12], "options": dict(options or {})}
                write_atomically(path / SETTINGS, to_yaml(self.settings | identity))
            if not storage:
                self._storage = _open_storage(url)
            prefix = f"{path.name}-{read_settings(path)['id']}/" if storage else ""
            self.search = self._open(f"{prefix}search")
            self.confirm = self._open(f"{prefix}confirm")
            self.n_interrupted = sum(map(mark_interrupted, (self.search, self.confirm)))

    def use(self, sampler: BaseSampler, pruner: BasePruner) -> None:
        """Set what chooses and what stops the trials of the search."""
        self.search.sampler = sampler
        self.search.pruner = pruner

    def close(self) -> None:
        """Give the folder free for other processes."""
        self._storage.remove_session()
        self._storage.engine.dispose()
        self._lock.release()

    def _acquire(self) -> None:
        try:
            self._lock.acquire()
        except Timeout as error:
            raise StudyError(f"{self.path}: another process is running this study; wait for it or stop it") from error

    def _open(self, name: str) -> optuna.Study:
        return optuna.create_study(
            study_name=name, storage=self._storage, direction="maximize", load_if_exists=True, sampler=_no_sampler()
        )


def _open_storage(url: str) -> optuna.storages.RDBStorage:
    try:
        if make_url(url).database in (None, "", ":memory:"):
            raise StudyError(f"--storage {url!r} names no database; a search in memory could not be resumed")
        return optuna.storages.RDBStorage(url)
    except (ImportError, sqlalchemy.exc.ArgumentError) as error:
        raise StudyError(f"--storage {url!r} cannot be opened: {one_line(error)}") from error


def without_password(url: str) -> str:
    """A storage URL as a study's settings keep it; `study.db` for none.

    Raises:
        ConfigError: It is no URL.
    """
    if not url:
        return "study.db"
    try:
        return make_url(url).render_as_string(hide_password=True)
    except sqlalchemy.exc.ArgumentError as error:
        raise ConfigError(f"--storage {url!r} is not a storage URL such as sqlite:///x.db or postgresql://…") from error


def _no_sampler() -> BaseSampler:
    return optuna.samplers.RandomSampler(seed=0)


def check_settings(path: Path, settings: Mapping[str, Any]) -> bool:
    """Whether the folder already holds a study of these settings; changes nothing.

    Raises:
        StudyError: It holds something else.
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
    for key in (k for k in dict.fromkeys([*stored, *settings]) if k not in _NOT_COMPARED):
        if stored.get(key) != settings.get(key):
            raise StudyError(
                f"{path}: belongs to other settings: {key} is {_brief(stored.get(key))} there and "
                f"{_brief(settings.get(key))} here; give another --name, or the same settings to resume"
            )
    return True


def read_settings(path: Path) -> dict[str, Any]:
    """The settings of the study in a folder.

    Raises:
        StudyError: There is no study, or its settings are damaged.
    """
    if not (path / SETTINGS).is_file():
        raise StudyError(f"{path}: holds no study (no {SETTINGS}); `peftsearch run` makes one")
    try:
        return read_yaml(path / SETTINGS)
    except ConfigError as error:
        raise StudyError(f"the settings of the study are damaged: {error}") from error


def state_path(folder: Path, name: str, seed: int) -> Path:
    """Where the trained parameters of one confirmation are."""
    safe = "".join(c if c.isalnum() or c in "-._" else "-" for c in name)
    return folder / "confirmed" / f"{safe}-seed{seed}.safetensors"


def mark_interrupted(study: optuna.Study) -> int:
    """Fail the trials that a killed process left running, so that they are run anew. Returns their number."""
    stale = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    for trial in stale:
        study._storage.set_trial_user_attr(trial._trial_id, INTERRUPTED, True)
        study._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
    return len(stale)


def make_pruner(strategy: Strategy) -> BasePruner:
    """The pruner of a strategy.

    Raises:
        ConfigError: Its settings do not suit it.
    """
    kinds = {"none": NopPruner, "median": MedianPruner}
    try:
        pruner: BasePruner = kinds[strategy.pruner](**strategy.pruner_settings)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"strategy {strategy.name}: pruner {strategy.pruner}: {one_line(error)}") from error
    return pruner


def to_yaml(data: Mapping[str, Any]) -> str:
    """A mapping as YAML in its own order, wide lines, no anchors."""
    dumper = yaml.SafeDumper
    text: str = yaml.dump(dict(data), Dumper=_plain(dumper), sort_keys=False, width=120, allow_unicode=True)
    return text


def _plain(dumper: type[yaml.SafeDumper]) -> type[yaml.SafeDumper]:
    return type("PlainDumper", (dumper,), {"ignore_aliases": lambda self, data: True})


def write_atomically(path: Path, text: str) -> None:
    """Write a file so that a kill leaves the old one or the new one whole."""
    part = path.with_name(f".{path.name}.part")
    with part.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


@contextmanager
def storage_faults(where: object) -> Iterator[None]:
    """Turn faults of the disk and the database into one line.

    Raises:
        StudyError: In place of a database error or a full, read-only or forbidden disk.
    """
    try:
        yield
    except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        cause = error.__cause__ if isinstance(error, optuna.exceptions.StorageInternalError) else error
        reason = one_line(getattr(cause, "orig", None) or cause or error, 160)
        raise StudyError(
            f"{where}: the storage cannot be used ({reason}); if it is damaged, restore study.db from a copy or start "
            "anew with another --name; if the disk is full or read-only, mend that and run the same command again"
        ) from error
    except OSError as error:
        if error.errno not in _DISK_FAULTS:
            raise
        raise StudyError(
            f"{error.filename or where}: {error.strerror}; mend that and run the same command again: nothing is lost"
        ) from error


def _brief(value: object) -> str:
    return one_line("not set" if value is None else repr(value), 80)
