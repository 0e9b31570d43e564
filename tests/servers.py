"""A database server of the tests' own, in a folder of theirs, where the machine has its programs."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path

import optuna
import pytest


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Postgres:
    """PostgreSQL on a free port of this machine; it refuses to run as root, so root starts it as another user."""

    def __init__(self, folder: Path) -> None:
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))
        own = shutil.which("pg_ctl")
        if not found and own is None:
            pytest.skip("PostgreSQL is not installed")
        pytest.importorskip("psycopg", reason="needs the extra postgres")
        self._bin = (found[-1] if found else Path(str(own))).resolve().parent
        self._data, self._log, self._port = folder / "data", folder / "log", free_port()
        if os.geteuid() == 0:
            folder.chmod(0o755)
            for parent in folder.parents:
                parent.chmod(parent.stat().st_mode | 0o011)
                if parent.name.startswith("pytest-of-"):
                    break
            shutil.chown(folder, "postgres")
        self._run("initdb", "-D", str(self._data), "-U", "tests", "--auth", "trust", "-E", "UTF8")
        self.start()

    def start(self) -> None:
        options = f"-p {self._port} -c listen_addresses=127.0.0.1 -c unix_socket_directories="
        self._run("pg_ctl", "-D", str(self._data), "-l", str(self._log), "-o", options, "-w", "start")

    def stop(self) -> None:
        """As if the power was cut."""
        self._run("pg_ctl", "-D", str(self._data), "-m", "immediate", "-w", "stop")

    def url(self, database: str) -> str:
        """The URL of a new database."""
        self._run("createdb", "-h", "127.0.0.1", "-p", str(self._port), "-U", "tests", database)
        return f"postgresql://tests:s3cret@127.0.0.1:{self._port}/{database}"

    def _run(self, program: str, *words: str) -> None:
        user = () if os.geteuid() else ("setpriv", "--reuid", _id("postgres"), "--clear-groups")
        command: Sequence[str] = [*user, str(self._bin / program), *words]
        done = subprocess.run(command, capture_output=True, text=True, cwd="/", timeout=60)
        assert done.returncode == 0, (command, done.stdout, done.stderr)


def _id(user: str) -> str:
    return str(pwd.getpwnam(user).pw_uid)


def trials_of(url: str, which: str = "search") -> list[optuna.trial.FrozenTrial]:
    """The trials in a storage; no connection stays open."""
    storage = optuna.storages.RDBStorage(url)
    try:
        name = next(name for name in optuna.get_all_study_names(storage) if name.endswith(f"/{which}"))
        return optuna.load_study(study_name=name, storage=storage).trials
    finally:
        storage.remove_session()
        storage.engine.dispose()
