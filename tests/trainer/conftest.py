"""A tiny model without dropout, and one finished training of it."""

import json

import pytest

from tests.runs import call, save_model, save_task


@pytest.fixture(scope="session")
def calm(tmp_path_factory):
    """A folder with a tiny model without dropout, and its training and validation file."""
    folder = tmp_path_factory.mktemp("calm")
    path = save_model(folder / "model") / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}))
    return folder, path.parent, save_task(folder)


@pytest.fixture(scope="session")
def train(calm):
    """Runs `peftsearch train` on it; returns the exit code."""
    _, model, files = calm

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
