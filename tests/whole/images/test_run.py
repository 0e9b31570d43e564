"""Images from `run` to `predict` and `export`, on a tiny ViT."""

import json
import shutil

import pandas as pd
import pytest
import torch
import yaml
from PIL import Image
from transformers import AutoModelForImageClassification, ViTImageProcessorPil

from tests.runs import call, refused

pytestmark = pytest.mark.slow


def test_the_result_is_that_of_a_classification(run):
    best = yaml.safe_load((run / "best.yaml").read_text())
    assert best["task"]["kind"] == "classification"
    assert best["task"]["labels"] == ["blue", "green", "red"]
    assert best["task"]["n_test"] == 12
    assert best["task"]["majority_score"] == pytest.approx(1 / 3)
    names = {row["name"] for row in best["comparison"]}
    assert {"head", "lora", "adapter", "bitfit", "prefix", "s4-paper"} <= names
    table = pd.read_csv(run / "trials.csv")
    assert set(table["state"].str.lower()) == {"complete"}
    assert (table["peak_memory_bytes"] > 0).all()


def test_the_same_command_trains_nothing_and_the_report_is_written(gallery, run, capsys):
    before = yaml.safe_load((run / "best.yaml").read_text())
    assert call("run", "--resume", "--runs", gallery / "runs", "--name", "r", "--json") == 0
    assert {**json.loads(capsys.readouterr().out), "made": 0} == {**before, "made": 0}
    assert call("report", run) == 0
    assert (run / "report.html").stat().st_size > 10_000


def test_a_training_learns_what_the_colours_are(gallery, trained, capsys):
    card = (trained / "README.md").read_text()
    assert "pipeline_tag: image-classification" in card
    assert "--input images/" in card
    assert call("evaluate", trained, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["score"], told["n"], told["data"]) == (1.0, 12, "train, test")
    assert call("evaluate", trained, "--test", gallery / "validation", "--json") == 0
    assert json.loads(capsys.readouterr().out)["n"] == 18


def test_predictions_name_their_files(gallery, trained, tmp_path, capsys):
    assert call("predict", trained, "--input", gallery / "test", "--output", tmp_path / "p.csv") == 0
    table = pd.read_csv(tmp_path / "p.csv")
    assert list(table.columns) == ["image", "predicted_label", "predicted_score"]
    assert list(table["image"].str.split("/").str[0]) == list(table["predicted_label"])
    assert table["image"].is_unique


def test_a_merged_model_predicts_the_same_with_transformers_alone(gallery, trained, tmp_path):
    assert call("export", trained, "--format", "merged", "--output", tmp_path / "m") == 0
    assert call("predict", trained, "--input", gallery / "test", "--output", tmp_path / "p.csv") == 0
    model = AutoModelForImageClassification.from_pretrained(tmp_path / "m").eval()
    processor = ViTImageProcessorPil.from_pretrained(tmp_path / "m")
    for row in pd.read_csv(tmp_path / "p.csv").itertuples():
        image = Image.open(gallery / "test" / row.image)
        with torch.no_grad():
            shares = model(**processor(images=image, return_tensors="pt")).logits.softmax(-1)[0]
        assert model.config.id2label[int(shares.argmax())] == row.predicted_label
        assert float(shares.max()) == pytest.approx(row.predicted_score, abs=1e-5)


def test_full_fine_tuning_comes_back_whole(data, gallery, tmp_path, capsys):
    output = tmp_path / "full"
    argv = ("train", "--method", "full", *data, "--steps", "3", "--device", "cpu", "--output", output)
    assert call(*argv) == 0
    trained = json.loads((output / "metrics.json").read_text())
    capsys.readouterr()
    assert call("evaluate", output, "--json") == 0
    assert json.loads(capsys.readouterr().out)["score"] == pytest.approx(trained["test"]["mean"])


def test_an_estimate_takes_an_images_patches(gallery, capsys):
    """16 patches of 4 x 4, and the class token."""
    assert call("estimate", "--model", gallery / "model", "--budget", "5%", "--json") == 0
    assert json.loads(capsys.readouterr().out)["seq"] == 17


class TestRefused:
    def test_a_text_model_and_the_reverse(self, place, gallery, data, tmp_path, capsys):
        _, model, files = place
        runs = ("--budget", "5%", "--runs", tmp_path / "runs")
        told = refused(capsys, "run", *runs, *data, "--model", model)
        assert "has images, and the model reads texts" in told
        told = refused(capsys, "run", *runs, "--model", gallery / "model", "--train", files[0])
        assert "has texts, and the model reads images" in told
        assert "is a folder" in refused(capsys, "run", *runs, "--model", model, "--train", gallery / "train")
        assert not (tmp_path / "runs").exists()

    def test_options_of_texts(self, data, tmp_path, capsys):
        argv = ("--budget", "5%", "--runs", tmp_path / "runs", *data)
        assert "reads images, not texts" in refused(capsys, "run", *argv, "--max-length", "9")
        assert "not for images" in refused(capsys, "run", *argv, "--text-column", "x")

    def test_a_damaged_image_before_anything_is_written(self, gallery, data, tmp_path, capsys):
        shutil.copytree(gallery / "validation", tmp_path / "v")
        (tmp_path / "v" / "red" / "3.png").write_bytes(b"\x89PNG\r\n")
        argv = ("run", "--budget", "5%", "--runs", tmp_path / "runs", *data, "--validation", tmp_path / "v")
        assert "red/3.png') is not an image" in refused(capsys, *argv)
        assert not (tmp_path / "runs").exists()

    def test_what_a_training_cannot_read(self, gallery, trained, place, tmp_path, capsys):
        _, _, files = place
        out = tmp_path / "p.csv"
        assert "is a table" in refused(capsys, "predict", trained, "--input", files[0], "--output", out)
        assert "is a file" in refused(capsys, "evaluate", trained, "--test", files[0])
        assert "has texts" in refused(capsys, "evaluate", trained, "--task", "sentiment")
        argv = ("predict", trained, "--input", gallery / "test", "--output", out, "--text-column", "x")
        assert "not for images" in refused(capsys, *argv)
        assert not out.exists()
