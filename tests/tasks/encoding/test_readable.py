"""What a tokenizer makes of texts is held against the model before the first step, and where it is used again."""

import json

import pytest

from tests.exports import refused
from tests.image_files import save_images, save_vit
from tests.runs import BRIEF as BRIEFLY
from tests.runs import WORDS, arguments, call, save_model, save_task

BRIEF = ("--method", "lora", "--budget", "20%", "--steps", "2", "--device", "cpu", "--dtype", "fp32")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return save_task(tmp_path_factory.mktemp("task"))


def train(model, files, out, *more):
    return ["train", *BRIEF, "--model", model, "--train", files[0], "--validation", files[1], "--output", out, *more]


def with_row(files, folder, text):
    """The training file with one more text."""
    path = folder / "more.csv"
    path.write_text(files[0].read_text() + f"{text},positive\n")
    return path, files[1]


def bart(path):
    """A tiny BART, whose head reads a text at its end token, with a tokenizer that sets one."""
    save_model(path, "bart")
    file = path / "tokenizer.json"
    content = json.loads(file.read_text())
    end = json.loads((path / "config.json").read_text())["eos_token_id"]
    words = sorted(content["model"]["vocab"], key=content["model"]["vocab"].get)
    content["post_processor"] = {
        "type": "TemplateProcessing", "pair": [],
        "single": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": words[end], "type_id": 0}}],
        "special_tokens": {words[end]: {"id": words[end], "ids": [end], "tokens": [words[end]]}},
    }  # fmt: skip
    file.write_text(json.dumps(content))
    return path, words[end]


def test_an_end_token_in_a_text(files, tmp_path, capsys):
    model, end = bart(tmp_path / "bart")
    data = with_row(files, tmp_path, f"a {end} film")
    line = refused(capsys, *train(model, data, tmp_path / "out"))
    assert f"1 of 97 examples cannot be read: example 97 ('a {end} film') has the end token" in line
    assert call(*train(model, data, tmp_path / "out", "--bad-rows", "drop")) == 0
    assert "1 of 97 examples cannot be read" in capsys.readouterr().out
    (tmp_path / "new.csv").write_text(f"text\na film\na {end} film\n")
    argv = ("predict", tmp_path / "out", "--input", tmp_path / "new.csv", "--output", tmp_path / "o.csv")
    assert "1 of 2 examples cannot be read: example 2" in refused(capsys, *argv)


def test_a_text_that_becomes_no_tokens(files, tmp_path, capsys):
    model = save_model(tmp_path / "gpt2", "gpt2")
    file = model / "tokenizer.json"
    content = json.loads(file.read_text())
    content["normalizer"] = {"type": "Replace", "pattern": {"String": "\u200b"}, "content": ""}
    file.write_text(json.dumps(content))
    line = refused(capsys, *train(model, with_row(files, tmp_path, "\u200b"), tmp_path / "out"))
    assert "example 97 ('\\u200b') becomes no tokens" in line


def test_a_token_that_the_model_has_no_embedding_for(files, tmp_path, capsys):
    model = save_model(tmp_path / "bert")
    file = model / "tokenizer.json"
    content = json.loads(file.read_text())
    content["model"]["vocab"]["film"] = 4_000
    file.write_text(json.dumps(content))
    assert "embeddings" in refused(capsys, *train(model, files, tmp_path / "out"))


def test_a_tokenizer_that_knows_no_words(files, tmp_path, capsys):
    model = save_model(tmp_path / "bert")
    file = model / "tokenizer.json"
    content = json.loads(file.read_text())
    content["model"]["vocab"] = {f"x{w}" if w in WORDS else w: i for w, i in content["model"]["vocab"].items()}
    file.write_text(json.dumps(content))
    assert "tells no texts of train apart" in refused(capsys, *train(model, files, tmp_path / "out"))


def test_a_search_leaves_out_what_a_training_does(files, tmp_path, capsys):
    model, end = bart(tmp_path / "bart")
    data = with_row(files, tmp_path, f"a {end} film")
    argv = ["run", "--budget", "20%", "--model", model, "--train", data[0], "--validation", data[1], "--device", "cpu"]
    argv += ["--runs", tmp_path, "--dry-run"]
    assert "1 of 97 examples cannot be read" in refused(capsys, *argv)
    assert call(*argv, "--bad-rows", "drop") == 0
    assert "left out" in capsys.readouterr().out


@pytest.mark.slow
def test_a_training_leaves_out_what_its_run_did(files, tmp_path):
    data = with_row(files, tmp_path, " ")
    argv = arguments(save_model(tmp_path / "bert"), data, tmp_path / "runs", *BRIEFLY, "--bad-rows", "drop")
    assert call(*argv, "--strategy", "random") == 0
    brief = ("--steps", "2", "--device", "cpu", "--dtype", "fp32")
    assert call("train", tmp_path / "runs" / "r", "--output", tmp_path / "out", *brief) == 0
    assert call("report", tmp_path / "runs" / "r") == 0
    places = ("runs/r/best.yaml", "runs/r/report.html", "out/training.yaml", "out/README.md")
    assert all("1 of 97 rows are faulty" in " ".join((tmp_path / place).read_text().split()) for place in places)


def test_damaged_images_are_refused_together_or_left_out(tmp_path, capsys):
    model, images = save_vit(tmp_path / "vit"), save_images(tmp_path / "images", 6)
    whole = (images / "red" / "1.png").read_bytes()
    for name in ("red/1.png", "blue/2.png"):
        (images / name).write_bytes(whole[:80])
    argv = ["run", "--budget", "20%", "--model", model, "--train", images, "--kind", "image", "--validation", images]
    argv += ["--device", "cpu", "--runs", tmp_path / "runs", "--dry-run"]
    line = refused(capsys, *argv)
    assert "train: 2 of 18 examples cannot be read" in line
    assert "red/1.png" in line
    assert "--bad-rows drop" in line
    assert call(*argv, "--bad-rows", "drop") == 0
    assert "test: 2 of 9 examples" in " ".join(capsys.readouterr().out.split())
