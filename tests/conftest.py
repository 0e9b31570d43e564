"""The whole suite stays off the network and on one thread: tiny tensors are slower on several."""

import os

import pytest
from hypothesis import settings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

settings.register_profile("suite", deadline=None, derandomize=True)  # no verdict by the clock, the same examples always
settings.load_profile("suite")


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


@pytest.fixture
def args(place, tmp_path):
    from tests.runs import arguments

    _, model, files = place
    return lambda *more: arguments(model, files, tmp_path / "runs", *more)
