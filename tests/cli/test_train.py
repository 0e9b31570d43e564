"""`peftsearch train`: what it leaves behind, what it refuses, and that a killed training goes on as if it had not."""

import json
import shutil

import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from safetensors.torch import load_file

import peftsearch
from peftsearch.trainer.folder import PROGRESS
from tests.runs import call, kill_after, refused, start


def metrics(output):
    return json.loads((output / "metrics.json").read_text())


def test_the_folder_holds_all_that_was_promised(trained):
    names = {"peftsearch.yaml", "peftsearch.safetensors", "training.yaml", "tokenizer.json", "curve.csv", "curve.png"}
    assert names | {"metrics.json", "README.md"} <= {path.name for path in trained.iterdir()}
    assert not (trained / PROGRESS).exists()
    scores = metrics(trained)
    assert [seed["state"] for seed in scores["seeds"]] == ["done", "done"]
    values = [seed["validation"] for seed in scores["seeds"]]
    assert scores["validation"]["mean"] == pytest.approx(sum(values) / 2)
    assert scores["test"]["n"] == 2
    assert values[scores["seed"]] == max(values)  # seeds 0 and 1: the weights are the best one's


def test_the_card_has_the_front_matter_of_the_hub(trained):
    data = ModelCard.load(trained / "README.md").data
    assert data.library_name == "peftsearch"
    assert {"peftsearch", "lora"} <= set(data.tags)
    assert data.language is None
    assert data.base_model is None  # a folder is no model of the hub
    values = {r.dataset_split: r.metric_value for r in data.eval_results}
    assert values == pytest.approx({s: metrics(trained)[s]["mean"] for s in ("validation", "test")}, abs=1e-6)


def test_the_saved_weights_score_what_the_metrics_say(trained, capsys):
    assert call("evaluate", trained, "--json") == 0
    scores = metrics(trained)
    assert json.loads(capsys.readouterr().out)["score"] == scores["seeds"][scores["seed"]]["test"]
    assert peftsearch.load(None, trained).architecture.n_params == scores["n_params"]


@pytest.mark.slow
def test_a_killed_training_goes_on_with_the_same_losses(calm, train, tmp_path):
    """The model has dropout here: random numbers must go on, too."""
    _, model, files = calm
    noisy = shutil.copytree(model, tmp_path / "noisy")
    config = json.loads((noisy / "config.json").read_text())
    (noisy / "config.json").write_text(json.dumps(config | {"hidden_dropout_prob": 0.1}))
    argv = [
        "train", "--method", "lora", "--budget", "20%", "--model", str(noisy), "--train", str(files[0]),
        "--validation", str(files[1]), "--device", "cpu", "--dtype", "fp32", "--steps", "60", "--eval-every", "2",
        "--output",
    ]  # fmt: skip
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    kill_after(start([*argv, str(killed)]), "step     6 of 60")
    assert not (killed / "metrics.json").exists()
    assert (killed / PROGRESS / "seed-0.safetensors").exists()
    assert call(*argv, killed, "--resume") == 0
    assert call(*argv, whole) == 0
    assert (killed / "curve.csv").read_text() == (whole / "curve.csv").read_text()
    assert (killed / "peftsearch.safetensors").read_bytes() == (whole / "peftsearch.safetensors").read_bytes()


def test_a_training_that_diverges_is_recorded(train, tmp_path, capsys):
    assert train(tmp_path / "d", "--steps", "6", "--eval-every", "3", "--learning-rate", "1e30") == 1
    error = capsys.readouterr().err.strip()
    assert "1 of 1 training diverged (seed 0: " in error
    assert len(error.splitlines()) == 1
    (seed,) = metrics(tmp_path / "d")["seeds"]
    assert seed["state"] == "diverged"
    assert "step" in seed["reason"] or "not finite" in seed["reason"]
    assert metrics(tmp_path / "d")["validation"] is None
    assert not (tmp_path / "d" / "peftsearch.safetensors").exists()


def test_full_fine_tuning_is_a_plain_model(train, tmp_path, capsys):
    from transformers import AutoModelForSequenceClassification

    output = tmp_path / "full"
    assert train(output, "--steps", "6", "--eval-every", "3", method="full") == 0
    assert AutoModelForSequenceClassification.from_pretrained(output).config.id2label == {0: "negative", 1: "positive"}
    capsys.readouterr()
    assert call("evaluate", output, "--json") == 0
    assert json.loads(capsys.readouterr().out)["score"] == metrics(output)["test"]["mean"]


def test_the_top_blocks_alone_are_trained(calm, train, tmp_path, capsys):
    """Blocks cut short by checkpointing, whose inputs need no gradient, give the same."""
    _, model, _ = calm
    output, cut = tmp_path / "top", tmp_path / "cut"
    short = ("--steps", "6", "--eval-every", "3", "--learning-rate", "1e-3")
    assert train(output, *short, method="top-2") == 0
    assert train(cut, *short, "--gradient-checkpointing", method="top-2") == 0
    assert (output / "curve.csv").read_text() == (cut / "curve.csv").read_text()
    before, after = (load_file(folder / "model.safetensors") for folder in (model, output))
    changed = {name for name in after if not torch.equal(before[name], after[name])}
    top = ("bert.encoder.layer.2.", "bert.encoder.layer.3.")
    assert {name for name in after if name.startswith((*top, "classifier."))} == changed
    assert metrics(output)["n_params"] == sum(after[n].numel() for n in after if n.startswith(top))
    assert "The top 2 blocks in full." in (output / "README.md").read_text()
    capsys.readouterr()
    assert call("evaluate", output, "--json") == 0
    assert json.loads(capsys.readouterr().out)["score"] == metrics(output)["test"]["mean"]


class TestRefused:
    def test_an_output_that_exists(self, train, trained, capsys):
        before = (trained / "metrics.json").read_bytes()
        capsys.readouterr()
        assert train(trained, "--steps", "6") == 2
        assert "--overwrite" in capsys.readouterr().err
        assert (trained / "metrics.json").read_bytes() == before

    def test_a_folder_of_something_else(self, train, tmp_path, capsys):
        (tmp_path / "precious.txt").write_text("keep")
        assert train(tmp_path, "--overwrite") == 2
        assert "holds no training" in capsys.readouterr().err
        assert (tmp_path / "precious.txt").read_text() == "keep"

    def test_resuming_with_other_settings(self, train, trained, capsys):
        assert train(trained, "--steps", "7", "--eval-every", "3", "--seeds", "2", "--resume") == 2
        assert "training.steps is 6 there and 7 here" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("more", "told"),
        [
            ((), "needs the best.yaml of a run"),
            (("--method", "lorra"), "did you mean 'lora'?"),
            (("--method", "lora"), "needs --budget"),
            (("--method", "full", "--budget", "1%"), "has no budget"),
            (("--method", "top-2", "--budget", "1%"), "has no budget"),
            (("--method", "top-2", "--quantize", "nf4"), "packed ones cannot be trained"),
            (("--method", "top-0"), "did you mean 'top-"),
            (("--method", "head", "--steps", "0"), "--steps must be at least 1"),
            (("--method", "head", "--steps", "1", "--epochs", "1"), "give one of them"),
        ],
    )
    def test_options_that_cannot_be(self, more, told, tmp_path, capsys):
        assert told in refused(capsys, "train", *more, "--output", tmp_path / "o")
        assert not (tmp_path / "o").exists()


@pytest.mark.slow
def test_from_a_run_to_predictions_in_another_process(finished, place, tmp_path, capsys):
    _, _, files = place
    output, texts, made = tmp_path / "trained", tmp_path / "texts.csv", tmp_path / "made.csv"
    assert call("train", finished / "best.yaml", "--output", output, "--steps", "4", "--device", "cpu") == 0
    best = yaml.safe_load((finished / "best.yaml").read_text())
    settings = yaml.safe_load((output / "training.yaml").read_text())
    assert settings["architecture"] == best["architecture"]
    assert settings["task"]["fingerprint"] == best["task"]["fingerprint"]
    capsys.readouterr()
    assert call("evaluate", output, "--test", files[1], "--json") == 0
    assert json.loads(capsys.readouterr().out)["score"] == metrics(output)["validation"]["mean"]
    lines = files[1].read_text().splitlines()
    texts.write_text("\n".join(line.split(",")[0] for line in lines))
    process = start(["predict", str(output), "--input", str(texts), "--output", str(made)])
    assert process.communicate()[1] is None
    assert process.returncode == 0
    rows = [line.split(",") for line in made.read_text().splitlines()]
    assert rows[0] == ["text", "predicted_label", "predicted_score"]
    right = [row[1] == line.split(",")[1] for row, line in zip(rows[1:], lines[1:], strict=True)]
    assert sum(right) / len(right) == metrics(output)["validation"]["mean"]


def test_data_that_cannot_be_found_again(finished, tmp_path, capsys):
    shutil.copy(finished / "best.yaml", tmp_path)
    told = refused(capsys, "train", tmp_path / "best.yaml", "--output", tmp_path / "o")
    assert "--train FILE --validation FILE" in told
    assert not (tmp_path / "o").exists()


def test_a_training_stops_early_and_is_finished_then(train, tmp_path, capsys):
    argv = ["--steps", "60", "--eval-every", "1", "--early-stopping", "2", "--class-weights", "balanced"]
    output = tmp_path / "early"
    assert train(output, *argv) == 0
    (seed,) = metrics(output)["seeds"]
    assert seed["steps"] == seed["best_step"] + 2 < 60
    assert "stops early" in capsys.readouterr().out
    assert yaml.safe_load((output / "training.yaml").read_text())["training"]["class_weights"] == "balanced"
