"""The database behind a study: opening it, its faults in one line, and the lock under which work is claimed.

A storage is SQLite in the study's folder, or any URL that Optuna's RDB storage takes.
"""

from __future__ import annotations

import errno
import logging
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import optuna
import sqlalchemy.exc
from filelock import FileLock
from sqlalchemy import text
from sqlalchemy.engine import URL, Engine, make_url

from peftsearch.errors import ConfigError, StudyError, one_line
from peftsearch.study.claims import GRACE_S, HEARTBEAT_S

_SQLITE_WAIT_S = 60
"""Seconds that a process waits for another one's write."""
_LOCK = 7_253_300_163
"""Number of the server's lock under which work is claimed ("peftsearch" on a telephone's keys, cut)."""
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
    url = URL.create("sqlite", database=str((path / "study.db").resolve()))
    return url.render_as_string(hide_password=False)


def study_prefix(name: str, identity: str) -> str:
    """What the names of a study's two Optuna studies begin with in a storage that several studies share."""
    return f"{name}-{identity}/"


def quiet_optuna() -> None:
    """Optuna and its migrations tell errors alone: the reporter tells the rest."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    logging.getLogger("alembic").setLevel(logging.ERROR)


def open_storage(url: str) -> optuna.storages.RDBStorage:
    """Open a database, with heartbeats.

    Raises:
        StudyError: The URL is none, names no database, or its driver is not installed.
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
    except (ImportError, sqlalchemy.exc.ArgumentError) as error:
        raise StudyError(f"--storage {_shown(url)!r} cannot be opened: {one_line(error)}") from error


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


def _shown(url: object) -> str:
    """A storage URL, or another place, as messages show it: without a password."""
    try:
        return make_url(str(url)).render_as_string(hide_password=True)
    except sqlalchemy.exc.ArgumentError:
        return str(url)


def require_database(url: str) -> None:
    """Check that a database is there, where opening it would make one.

    Raises:
        StudyError: The URL names a file of SQLite that is not there, or is none.
    """
    try:
        made = make_url(url)
    except sqlalchemy.exc.ArgumentError as error:
        raise StudyError(f"--storage {url!r} is not a storage URL such as sqlite:///x.db or postgresql://…") from error
    file = made.database if made.get_backend_name() == "sqlite" else None
    if file and not file.startswith((":", "file:")) and not Path(file).exists():
        raise StudyError(f"--storage {url!r}: there is no file {file}; give the URL that the run was begun with")


def claim_lock(storage: optuna.storages.RDBStorage, folder: Path) -> AbstractContextManager[object]:
    """The lock under which processes look for work, one at a time; usable again and again.

    Args:
        storage: A server's own lock where it is PostgreSQL or MySQL, so that machines need no common disk; for SQLite
            a file beside the database.
        folder: The study's folder, for other databases.
    """
    engine: Engine = storage.engine
    backend = engine.url.get_backend_name()
    if backend in {"postgresql", "mysql", "mariadb"}:
        return _ServerLock(engine, backend)
    beside = Path(str(engine.url.database)).resolve() if backend == "sqlite" else folder / "study"
    return FileLock(beside.with_name(".claim" if beside.parent == folder.resolve() else f".{beside.name}.claim"))


class _ServerLock:
    """An advisory lock of the database server, held by a connection of its own; a dead holder's is freed."""

    def __init__(self, engine: Engine, backend: str) -> None:
        self._engine = engine
        self._postgres = postgres = backend == "postgresql"
        self._take = f"SELECT pg_advisory_lock({_LOCK})" if postgres else f"SELECT GET_LOCK('peftsearch-{_LOCK}', 60)"
        self._give = f"SELECT pg_advisory_unlock({_LOCK})" if postgres else f"SELECT RELEASE_LOCK('peftsearch-{_LOCK}')"

    def __enter__(self) -> None:
        self._connection = self._engine.connect()
        try:
            while (taken := self._connection.execute(text(self._take)).scalar()) == 0:
                pass  # MySQL's wait is over, and begins again; PostgreSQL's has no end
            if taken is None and not self._postgres:
                raise StudyError("the storage's server gives no lock (GET_LOCK answers NULL); try again")
        except BaseException:
            self._connection.invalidate()  # a lock that came too late is not kept in the pool
            self._connection.close()
            raise

    def __exit__(self, *error: object) -> None:
        try:
            self._connection.execute(text(self._give))
        finally:
            self._connection.close()


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
            f"{_shown(where)}: the storage cannot be used ({reason}); if it is damaged, restore study.db from a copy "
            "or start anew with another --name; if the disk is full or read-only, mend that and run the same command "
            "again"
        ) from error
    except OSError as error:
        if error.errno not in _DISK_FAULTS:
            raise
        raise StudyError(
            f"{error.filename or where}: {error.strerror}; mend that and run the same command again: nothing is lost"
        ) from error
