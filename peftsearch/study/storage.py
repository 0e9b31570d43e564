"""The database of a study: opening it, reporting its faults in one line, and the lock for claiming work.

A storage is SQLite in the study's folder, or any URL that Optuna's RDB storage accepts.
"""

from __future__ import annotations

import errno
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import optuna
import sqlalchemy.exc
from filelock import FileLock
from sqlalchemy import text
from sqlalchemy.engine import URL, Engine, make_url

from peftsearch.errors import ConfigError, StudyError, hide_secrets, one_line
from peftsearch.study.claims import GRACE_S, HEARTBEAT_S
from peftsearch.study.settings import OWN_STORAGE

_SQLITE_WAIT_S = 60
"""Seconds to wait for another process's write."""
_LOCK = 7_253_300_163
"""Number of the database server's lock for claiming work ("peftsearch" on a telephone's keys, cut)."""
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


def own_url(path: Path) -> str:
    """The URL of the SQLite database in a study's folder."""
    url = URL.create("sqlite", database=str((path / OWN_STORAGE).resolve()))
    return url.render_as_string(hide_password=False)


def study_prefix(name: str, identity: str) -> str:
    """Prefix of the names of a study's two Optuna studies in a storage that several studies share."""
    return f"{name}-{identity}/"


def quiet_optuna() -> None:
    """Limit Optuna and its migrations to logging errors; the reporter shows everything else."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    logging.getLogger("alembic").setLevel(logging.ERROR)


def open_storage(url: str) -> optuna.storages.RDBStorage:
    """Open a database, with heartbeats.

    Raises:
        StudyError: The URL is invalid, names no database, or its driver is not installed.
    """
    try:
        made = make_url(url)
        if made.database in (None, "", ":memory:"):
            raise StudyError(f"--storage {_shown(url)!r} names no database; a search in memory could not be resumed")
        sqlite = made.get_backend_name() == "sqlite"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # heartbeats, since Optuna 2.5
            return optuna.storages.RDBStorage(
                url,
                engine_kwargs={"connect_args": {"timeout": _SQLITE_WAIT_S}} if sqlite else None,
                heartbeat_interval=HEARTBEAT_S,
                grace_period=GRACE_S,
            )
    except ImportError as error:
        raise StudyError(
            f"--storage {_shown(url)!r} needs the driver of its database: for PostgreSQL pip install "
            f'"peftsearch[postgres]" ({one_line(error, 100)})'
        ) from error
    except (sqlalchemy.exc.ArgumentError, ValueError) as error:
        raise StudyError(f"--storage {_shown(url)!r} cannot be opened: {one_line(error)}") from error


def without_password(url: str) -> str:
    """A storage URL in the form of a study's settings, without its password; `study.db` if empty.

    Raises:
        ConfigError: The text is not a URL.
    """
    if not url:
        return OWN_STORAGE
    try:
        return _shown_url(make_url(url))
    except (sqlalchemy.exc.ArgumentError, ValueError) as error:
        raise ConfigError(
            f"--storage {_masked(url)!r} is not a storage URL such as sqlite:///x.db or postgresql://…"
        ) from error


def _shown(url: object) -> str:
    """A storage URL or path for messages, without a password."""
    try:
        return _shown_url(make_url(str(url)))
    except (sqlalchemy.exc.ArgumentError, ValueError):
        return _masked(str(url))


def _shown_url(url: URL) -> str:
    return hide_secrets(url.render_as_string(hide_password=True))


def _masked(text: str) -> str:
    """A text that is no URL without what may be a password: what stands before an @, or behind a colon."""
    if "@" in text:
        return f"***{text[text.rfind('@') :]}"
    return hide_secrets(text)


def require_database(url: str) -> None:
    """Check that a database exists, because opening an SQLite URL would create it.

    Raises:
        StudyError: The URL names an SQLite file that does not exist, or is invalid.
    """
    try:
        made = make_url(url)
    except (sqlalchemy.exc.ArgumentError, ValueError) as error:
        raise StudyError(
            f"--storage {_masked(url)!r} is not a storage URL such as sqlite:///x.db or postgresql://…"
        ) from error
    file = made.database if made.get_backend_name() == "sqlite" else None
    if file and not file.startswith((":", "file:")) and not Path(file).exists():
        raise StudyError(
            f"--storage {_shown(url)!r}: there is no file {file}; give the URL that the run was started with"
        )


def claim_lock(storage: optuna.storages.RDBStorage, folder: Path) -> AbstractContextManager[object]:
    """Make the reusable lock under which one process at a time looks for work.

    Args:
        storage: The storage. PostgreSQL and MySQL provide a lock of the server, so that machines need no common disk;
            for SQLite, the lock is a file next to the database.
        folder: The study's folder, which holds the lock file for other databases.
    """
    engine: Engine = storage.engine
    backend = engine.url.get_backend_name()
    if backend in {"postgresql", "mysql", "mariadb"}:
        return _ServerLock(engine, backend)
    beside = Path(str(engine.url.database)).resolve() if backend == "sqlite" else folder / "study"
    return FileLock(beside.with_name(".claim" if beside.parent == folder.resolve() else f".{beside.name}.claim"))


class _ServerLock:
    """An advisory lock of the database server on a separate connection; the server frees it if its holder dies."""

    def __init__(self, engine: Engine, backend: str) -> None:
        self._engine = engine
        self._postgres = postgres = backend == "postgresql"
        self._take = f"SELECT pg_advisory_lock({_LOCK})" if postgres else f"SELECT GET_LOCK('peftsearch-{_LOCK}', 60)"
        self._give = f"SELECT pg_advisory_unlock({_LOCK})" if postgres else f"SELECT RELEASE_LOCK('peftsearch-{_LOCK}')"

    def __enter__(self) -> None:
        self._connection = self._engine.connect()
        try:
            while (taken := self._connection.execute(text(self._take)).scalar()) == 0:
                pass  # MySQL's wait timed out and starts again; PostgreSQL's has no limit
            if taken is None and not self._postgres:
                raise StudyError("the storage's server gives no lock (GET_LOCK answers NULL); try again")
        except BaseException:
            self._connection.invalidate()  # the server may still grant the lock: the pool must not keep it
            self._connection.close()
            raise

    def __exit__(self, *error: object) -> None:
        try:
            self._connection.execute(text(self._give))
        finally:
            self._connection.close()


def _without_parts(reason: str, url: str) -> str:
    """A driver's words without parts of the password, which it may take for a host if the password holds an @."""
    _, _, rest = url.partition("://")
    for part in re.split(r"[:@/]", rest[: max(0, rest.rfind("@"))]):
        reason = reason.replace(part, "***") if len(part) > 1 else reason
    return reason


@contextmanager
def storage_faults(where: object) -> Iterator[None]:
    """Turn faults of the disk and the database into one-line errors.

    Raises:
        StudyError: The database failed, or the disk is full, read-only or not accessible.
    """
    try:
        yield
    except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        cause = error.__cause__ if isinstance(error, optuna.exceptions.StorageInternalError) else error
        reason = _without_parts(one_line(getattr(cause, "orig", None) or cause or error, 160), str(where))
        raise StudyError(
            f"{_shown(where)}: the storage cannot be used ({reason}); if it is damaged, restore study.db from a copy "
            "or start over with a new --name; if the disk is full or read-only, free or remount it and rerun the same "
            "command"
        ) from error
    except OSError as error:
        if error.errno not in _DISK_FAULTS:
            raise
        raise StudyError(
            f"{error.filename or where}: {error.strerror}; fix that and rerun the same command: nothing is lost"
        ) from error
