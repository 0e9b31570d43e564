"""`peftsearch subspace`, and the way of its file through a run, a training and its predictions."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
import yaml
from safetensors import safe_open

from peftsearch.backbone.folder import fingerprint_folder
from peftsearch.backbone.load import load_backbone
from peftsearch.backbone.subspace import principal_directions, with_subspace, write_subspace
from peftsearch.injection.checkpoint import read_checkpoint
from tests.runs import BRIEF, QUICK, arguments, call, refused, save_model, save_task

SMALL = ("--examples", "32", "--steps", "2", "--length", "3", "--device", "cpu", "--dtype", "fp32")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A tiny model, a task in files, and a subspace of the generated tasks."""
    folder = tmp_path_factory.mktemp("subspace")
    save_model(folder / "model")
    (folder / "data").mkdir()
    save_task(folder / "data")
    (folder / "own.yaml").write_text("groups: 1\nmethods: [ipt]\nallocations: [uniform]\n")
    made = ("subspace", "--model", folder / "model", "--seeds", "1", *SMALL)
    assert call(*made, "--output", folder / "s.safetensors") == 0
    return folder


def test_the_file_holds_the_directions_of_the_source_prompts(place):
    with safe_open(place / "s.safetensors", framework="pt") as file:
        facts, shape = file.metadata(), file.get_slice("basis").get_shape()
    assert facts["sources"].split("\n") == ["sentiment, seed 0", "acceptability, seed 0", "entailment, seed 0"]
    assert facts["fingerprint"] == fingerprint_folder(place / "model")
    assert shape == [2, 3, 32]
    subspace = with_subspace(load_backbone(place / "model", num_labels=2).backbone, place / "s.safetensors").subspace
    assert subspace.n_directions == 2


def test_a_user_names_tasks_and_gets_a_line_for_each(place, tmp_path, capsys):
    made = ("--model", place / "model", "--output", tmp_path / "s", "--tasks", "sentiment", "--dimensions", "1")
    assert call("subspace", *made, "--seeds", "2", *SMALL) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines[:2]] == ["sentiment, seed 0", "sentiment, seed 1"]
    assert "1 direction of 2 prompts (3 x 32)" in lines[2]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--length", "0"], "--length must be from 1 to 100"),
        (["--tasks", "nope"], "unknown task 'nope'"),
        (["--tasks", "sentiment", "--seeds", "1"], "one source prompt spans no subspace"),
        (["--dimensions", "12"], "--dimensions must be from 1 to 11"),
        (["--steps", "0"], "--steps must be at least 1"),
        (["--seed", "-1"], "--seed must be from 0"),
        (["--learning-rate", "0"], "must be above 0"),
        (["--output", "nowhere/s"], "make it first"),
    ],
)
def test_wrong_options_are_one_line(tmp_path, monkeypatch, capsys, more, said):
    monkeypatch.chdir(tmp_path)
    assert said in refused(capsys, "subspace", *([] if "--output" in more else ["--output", "s"]), *more)


def test_an_output_is_not_replaced_unasked(place, capsys):
    assert "add --overwrite" in refused(capsys, "subspace", "--output", place / "s.safetensors")


@pytest.mark.parametrize("command", ["run --budget 1%", "list methods", "train --method ipt --budget 1% --output o"])
def test_a_subspace_that_is_no_file_is_refused(command, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = refused(capsys, *command.split(), "--subspace", "nowhere")
    assert "--subspace nowhere: no such file; make one with `peftsearch subspace`" in line


def test_list_methods_takes_it(place, capsys):
    assert call("list", "methods", "--json", "--model", place / "model", "--subspace", place / "s.safetensors") == 0
    row = next(row for row in json.loads(capsys.readouterr().out) if row["name"] == "ipt")
    assert row["fitted"] == "d=2"
    assert call("list", "methods", "--json", "--model", place / "model") == 0
    row = next(row for row in json.loads(capsys.readouterr().out) if row["name"] == "ipt")
    assert "make one with `peftsearch subspace`" in row["obstacle"]


@pytest.mark.slow
def test_from_a_run_to_predictions_without_the_file(place, tmp_path, capsys):
    given, data = tmp_path / "given.safetensors", (place / "data" / "train.csv", place / "data" / "validation.csv")
    shutil.copy(place / "s.safetensors", given)
    brief = ("--space", str(place / "own.yaml"), "--strategy", QUICK, *BRIEF, "--trials", "1")
    words = arguments(place / "model", data, tmp_path / "runs", *brief)
    assert "has no subspace of prompts" in refused(capsys, *words)
    assert call(*words, "--subspace", given) == 0
    run = tmp_path / "runs" / "r"
    assert yaml.safe_load((run / "settings.yaml").read_text())["subspace"].startswith("sha256:")
    backbone = load_backbone(place / "model", num_labels=2).backbone
    write_subspace(given, principal_directions(torch.randn(3, 2, 32)), backbone, [])
    capsys.readouterr()
    assert "subspace is 'sha256:" in refused(capsys, *words, "--subspace", given)
    given.unlink()
    best = yaml.safe_load((run / "best.yaml").read_text())
    name = next(row["name"] for row in best["comparison"] if "ipt" in row["detail"])
    output = tmp_path / "trained"
    assert call("train", run, "--design", name, "--steps", "2", "--output", output, "--device", "cpu") == 0
    assert [(p.method, p.size) for p in read_checkpoint(output).architecture.placements] == [("prompt", 3)]
    assert call("predict", output, "--input", data[1], "--output", tmp_path / "p.csv") == 0
    assert (tmp_path / "p.csv").read_text().count("\n") == data[1].read_text().count("\n")
    assert call("extend", run, "--trials", "2", "--device", "cpu") == 0
    assert call("export", run, "--design", name, "--format", "peftsearch", "--output", tmp_path / "exported") == 0
    assert read_checkpoint(tmp_path / "exported").architecture.placements[0].method == "prompt"
