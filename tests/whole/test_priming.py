"""Methods that choose by data what they train, from the command line: regression, generation, several tasks."""

import json
import random

import pytest
import torch
from safetensors.torch import load_file

from tests.generators import generate_arguments
from tests.runs import QUICK, arguments, call, study

pytestmark = pytest.mark.slow

CHOOSING = ("fishmask", "far", "adapter_sparse")
SHORT = ("--strategy", QUICK, "--trials", "3", "--steps", "2", "--search-steps", "1", "--seeds", "1")


@pytest.fixture(scope="module")
def space(tmp_path_factory):
    path = tmp_path_factory.mktemp("space") / "choosing.yaml"
    text = "groups: 1\ngroupings: [uniform]\nallocations: [uniform]\ntunable_groups: all\n"
    path.write_text(f"{text}methods: [{', '.join(CHOOSING)}]\n")
    return path


@pytest.fixture(scope="module")
def numbers(tmp_path_factory):
    rng, folder = random.Random(0), tmp_path_factory.mktemp("numbers")
    paths = folder / "train.jsonl", folder / "validation.jsonl"
    for path, n in zip(paths, (48, 32), strict=True):
        rows = [{"text": f"the film w{i} was {'very ' * rng.randrange(4)}long", "label": i / 7} for i in range(n)]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return paths


def searched(folder):
    """Trials of the search proper, which all must have ended well."""
    trials = [t for t in study(folder).trials if "kind" not in t.user_attrs]
    assert trials
    assert all(t.state.name in {"COMPLETE", "PRUNED"} for t in trials), [t.user_attrs.get("reason") for t in trials]
    return trials


def test_a_regression(place, space, numbers, tmp_path):
    assert call(*arguments(place[1], numbers, tmp_path, "--kind", "regression", "--space", str(space), *SHORT)) == 0
    assert len(searched(tmp_path / "r")) == 3


def test_a_generation(space, llama, pairs, tmp_path):
    argv = generate_arguments(llama, pairs, tmp_path / "runs", "--space", str(space), *SHORT)
    assert call(*argv) == 0
    assert len(searched(tmp_path / "runs" / "r")) == 3


@pytest.mark.slow
def test_two_tasks_choose_each_by_its_own_data(place, space, tmp_path):
    _, model, _ = place
    argv = [
        "run",
        "--budget",
        "20%",
        "--model",
        model,
        "--task",
        "sentiment,acceptability",
        "--max-train",
        "32",
        "--runs",
    ]
    assert call(*argv, tmp_path, "--name", "r", "--device", "cpu", "--space", space, *SHORT) == 0
    assert len(searched(tmp_path / "r")) == 3
    states = [load_file(path) for path in sorted((tmp_path / "r" / "confirmed").glob("trial*"))]
    chosen = [{name: t.tolist() for name, t in state.items() if t.dtype == torch.int64} for state in states]
    assert len(chosen) >= 2, "one for each task"
    assert chosen[0].keys() == chosen[1].keys() != set()
    assert chosen[0] != chosen[1]


@pytest.mark.parametrize("method", CHOOSING)
def test_train_of_a_regression(method, place, numbers, tmp_path):
    source = ["--model", place[1], "--train", numbers[0], "--validation", numbers[1], "--kind", "regression"]
    argv = ["train", "--method", method, "--budget", "20%", *source, "--device", "cpu", "--steps", "2"]
    assert call(*argv, "--output", tmp_path / "t") == 0
