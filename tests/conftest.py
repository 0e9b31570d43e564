"""The whole suite stays off the network and on one thread: tiny tensors are slower on several.

Studies of this process are not flushed to the disk: half of a tiny run is waiting for that, and no test cuts the power.
Those of processes that tests start are.
"""

import json
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


@pytest.fixture(scope="session", autouse=True)
def one_precision():
    """Full precision on every machine, so that equal seeds give equal scores."""
    from peftsearch.backbone import device

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(device, "_cpu_flags", set)
        yield


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


@pytest.fixture(scope="session")
def calm(tmp_path_factory):
    """A folder with a tiny model without dropout, and its training and validation file."""
    from tests.runs import save_model, save_task

    folder = tmp_path_factory.mktemp("calm")
    path = save_model(folder / "model") / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}))
    return folder, path.parent, save_task(folder)


@pytest.fixture(scope="session")
def train(calm):
    """Runs `peftsearch train` on it; returns the exit code."""
    _, model, files = calm

    from tests.runs import call

    def run(output, *more, method="lora"):
        budget = () if method in ("full", "top-2", "head") else ("--budget", "20%")
        source = ("--model", model, "--train", files[0], "--validation", files[1], "--test", files[1])
        return call("train", "--method", method, *budget, *source, "--device", "cpu", "--output", output, *more)

    return run


@pytest.fixture(scope="session")
def trained(calm, train):
    """The folder of two seeds of LoRA, six steps each."""
    output = calm[0] / "trained"
    assert train(output, "--steps", "6", "--eval-every", "3", "--seeds", "2") == 0
    return output


@pytest.fixture(scope="session")
def gallery(tmp_path_factory):
    """A folder with `model`, and `train`, `validation` and `test` of 8, 6 and 4 images a class."""
    from tests.image_files import save_images, save_vit

    folder = tmp_path_factory.mktemp("images")
    save_vit(folder / "model")
    for seed, (name, n) in enumerate({"train": 8, "validation": 6, "test": 4}.items()):
        save_images(folder / name, n, seed)
    return folder
