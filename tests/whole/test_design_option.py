"""`--design NAME`: another confirmed design of a run than its pick goes into show, train, export, inject and refit."""

import json
import shutil
import sqlite3

import pytest
import torch
import yaml

import peftsearch
from peftsearch.design.architecture import Architecture
from peftsearch.design.design import Design
from peftsearch.errors import ConfigError
from peftsearch.injection.states import read_state, state
from peftsearch.study.best import read_found
from peftsearch.study.folder import state_paths
from tests.runs import call, refused


@pytest.fixture(scope="module")
def best(finished):
    return yaml.safe_load((finished / "best.yaml").read_text())


@pytest.fixture(scope="module")
def other(best):
    """A design that was confirmed and not picked, and that has something to train."""
    return next(name for name, own in best["confirmed"].items() if own["architecture"]["n_params"])


def test_every_confirmed_design_stands_in_the_file(best, finished):
    rows = {row["name"]: row for row in best["comparison"] if row["validation"]}
    assert {best["name"], *best["confirmed"]} == set(rows)
    assert best["name"] not in best["confirmed"]
    for name, own in best["confirmed"].items():
        assert Architecture.from_dict(own["architecture"]).n_params == rows[name]["n_params"]
        assert Design.from_dict(own["design"])
        assert own["learning_rate"] > 0


def test_it_is_read_in_the_picks_place(best, finished, other):
    found = read_found(finished, other)
    assert (found.name, found.architecture.to_dict()["n_params"]) == (other, found.architecture.n_params)
    assert found.architecture == Architecture.from_dict(best["confirmed"][other]["architecture"])
    assert read_found(finished, best["name"]) == read_found(finished)
    number = next((n for n in (best["name"], *best["confirmed"]) if n.startswith("trial ")), None)
    assert number is not None
    assert read_found(finished, number.removeprefix("trial ")).name == number


def test_show_draws_it(best, finished, other, capsys):
    assert call("show", finished, "--design", other) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert f"{other} was confirmed; the run picked {best['name']}:" in out
    assert f"{best['confirmed'][other]['architecture']['n_params']:,} trainable parameters" in out


def test_estimate_takes_it(best, finished, other, capsys):
    assert call("estimate", finished, "--design", other, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert list(told["bytes"]) == [other]
    assert str(best["confirmed"][other]["architecture"]["n_params"]) in json.dumps(told)


def test_train_takes_it(best, finished, other, tmp_path):
    output = tmp_path / "t"
    assert call("train", finished / "best.yaml", "--design", other, "--output", output, "--steps", "2") == 0
    assert yaml.safe_load((output / "training.yaml").read_text())["method"] == other
    metrics = json.loads((output / "metrics.json").read_text())
    assert metrics["n_params"] == best["confirmed"][other]["architecture"]["n_params"]


def test_export_takes_its_own_parameters(finished, other, tmp_path):
    argv = ["export", finished, "--design", other, "--format", "peftsearch", "--output", tmp_path / "e"]
    assert call(*argv) == 0
    injection = peftsearch.load(None, tmp_path / "e")
    assert injection.architecture == read_found(finished, other).architecture
    kept = read_state(state_paths(finished, other, 1000, 1)[0])
    own = state(injection.model)
    assert own.keys() == kept.keys()
    assert all(torch.equal(own[name], kept[name]) for name in kept)


def test_the_api_takes_it(finished, other, place):
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(place[1])
    with peftsearch.inject(model, finished, design=other) as injection:
        assert injection.architecture == read_found(finished, other).architecture
    assert peftsearch.refit(finished, model, "10%", design=other).n_params <= 0.1 * model.num_parameters()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["train", "RUN", "--design", "trial 999", "--output", "o"], "has no confirmed design 'trial 999' (it has "),
        (["export", "RUN", "--design", "nix", "--format", "merged", "--output", "o"], "has no confirmed design 'nix'"),
        (["show", "RUN", "--design", "999"], "has no confirmed design 'trial 999'"),
        (["train", "RUN", "--design", "lora", "--method", "lora", "--output", "o"], "--design: is one of a run"),
        (["train", "--design", "lora", "--method", "full", "--output", "o"], "--design: is one of a run"),
    ],
)
def test_refused(finished, tmp_path, capsys, argv, message):
    argv = [str(finished) if a == "RUN" else str(tmp_path / a) if a == "o" else a for a in argv]
    assert message in refused(capsys, *argv)


def test_a_design_without_a_score_is_none(finished, best, other, tmp_path):
    """Both trainings of a confirmed design failed: it stands in the table, and is not to be had."""
    shutil.copytree(finished, tmp_path / "r")
    (tmp_path / "r" / "best.yaml").unlink()  # a finished run would show it
    with sqlite3.connect(tmp_path / "r" / "study.db") as database:
        database.execute(
            "UPDATE trials SET state = 'FAIL' WHERE trial_id IN "
            "(SELECT trial_id FROM trial_user_attributes WHERE key = 'name' AND value_json = ?) AND study_id = "
            "(SELECT study_id FROM studies WHERE study_name = 'confirm')",
            (json.dumps(other),),
        )
    assert call("run", "--resume", "--runs", tmp_path, "--name", "r") == 0
    again = yaml.safe_load((tmp_path / "r" / "best.yaml").read_text())
    assert other in [row["name"] for row in again["comparison"]]
    assert other not in again["confirmed"]
    assert again["confirmed"].keys() < best["confirmed"].keys()


def test_an_architecture_is_no_run(finished, place):
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(place[1])
    with pytest.raises(ConfigError, match="is one of a run"):
        peftsearch.inject(model, read_found(finished).architecture, design="lora")


@pytest.mark.parametrize("key", ["architecture", "confirmed"])
def test_an_infinite_number(best, other, tmp_path, capsys, key):
    content = json.loads(json.dumps(best))
    (content["architecture"] if key == "architecture" else content["confirmed"][other]["architecture"])["n_params"] = (
        float("inf")
    )
    (tmp_path / "best.yaml").write_text(yaml.safe_dump(content))
    design = () if key == "architecture" else ("--design", other)
    for command in ("show", "estimate"):
        assert "OverflowError" in refused(capsys, command, tmp_path, *design)


def test_a_damaged_entry(best, other, tmp_path, capsys):
    (tmp_path / "best.yaml").write_text(yaml.safe_dump(best | {"confirmed": {other: {"design": {}}}}))
    assert "is damaged" in refused(capsys, "show", tmp_path, "--design", other)
