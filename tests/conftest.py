"""The whole suite stays off the network and on one thread: tiny tensors are slower on several.

Studies of this process are not flushed to the disk: half of a tiny run is waiting for that, and no test cuts the power.
Those of processes that tests start are.
"""

import os
import sqlite3

import pytest
import sqlalchemy
from hypothesis import settings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("RAY_worker_niceness", "0")  # 15 would starve Ray's workers beside the other tests

settings.register_profile("suite", deadline=None, derandomize=True)  # no verdict by the clock, the same examples always
settings.load_profile("suite")


@sqlalchemy.event.listens_for(sqlalchemy.Engine, "connect")
def do_not_flush(connection, record):
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA synchronous=OFF")


@pytest.fixture(scope="session")
def place(tmp_path_factory):
    """A folder, a tiny model in it, and its training and validation file."""
    from tests.runs import save_model, save_task  # after the environment is set, as torch reads it

    folder = tmp_path_factory.mktemp("run")
    return folder, save_model(folder / "model"), save_task(folder)


@pytest.fixture(scope="session")
def finished(place):
    """One uninterrupted run."""
    from tests.runs import arguments, call

    folder, model, files = place
    assert call(*arguments(model, files, folder / "whole")) == 0
    return folder / "whole" / "r"


@pytest.fixture(scope="session")
def pairs(tmp_path_factory):
    """Prompts and completions in a training and a validation file."""
    from tests.generators import save_pairs

    return save_pairs(tmp_path_factory.mktemp("pairs"))


@pytest.fixture(scope="session")
def llama(tmp_path_factory):
    """A tiny generator in a folder."""
    from tests.generators import save_generator

    return save_generator(tmp_path_factory.mktemp("models") / "llama", "llama")


@pytest.fixture
def args(place, tmp_path):
    from tests.runs import arguments

    _, model, files = place
    return lambda *more: arguments(model, files, tmp_path / "runs", *more)
