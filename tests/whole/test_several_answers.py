"""Tags of words, and several classes for each text, from a search to predictions and exports on a tiny model."""

import json
import random

import datasets
import pandas as pd
import pytest
import torch
import yaml
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification, AutoTokenizer

import peftsearch
from peftsearch.backbone.detect import detect
from peftsearch.backbone.load import load_backbone
from peftsearch.design.baselines import uniform, usable_methods
from peftsearch.design.budget import Budget
from peftsearch.design.fitting import fit, smallest_budget
from peftsearch.injection.inject import inject
from tests.runs import NEGATIVE, POSITIVE, QUICK, WORDS, call, refused, save_model

SIZE = ("--strategy", QUICK, "--trials", "3", "--steps", "4", "--search-steps", "2", "--seeds", "2", "--device", "cpu")


def rows(n, seed):
    """Sentences whose good and bad words are entities, and which have the classes of the words in them."""
    rng, made = random.Random(seed), []
    for _ in range(n):
        words = [rng.choice(WORDS) for _ in range(rng.randint(2, 6))]
        tags = ["B-good" if w in POSITIVE else "B-bad" if w in NEGATIVE else "O" for w in words]
        made.append({"tokens": words, "tags": tags, "text": " ".join(words),
                     "labels": sorted({tag[2:] for tag in tags if tag != "O"})})  # fmt: skip
    return made


OWN = {"tagging": ("tokens", "tags"), "multi_label": ("text", "labels")}


def save(path, data, kind):
    path.write_text("".join(json.dumps({key: row[key] for key in OWN[kind]}) + "\n" for row in data))
    return path


@pytest.fixture(scope="module", params=list(OWN))
def found(request, tmp_path_factory):
    """Kind, files and the finished run."""
    folder, kind = tmp_path_factory.mktemp(request.param), request.param
    files = {
        split: save(folder / f"{split}.jsonl", rows(n, n), kind) for split, n in (("train", 60), ("validation", 40))
    }
    data = ("--model", save_model(folder / "model"), "--train", files["train"], "--validation", files["validation"])
    assert call("run", "--budget", "20%", *data, *SIZE, "--name", "r", "--runs", folder / "runs") == 0
    return kind, files, folder / "runs" / "r"


def test_a_search_ends_in_a_verdict(found):
    kind, _, run = found
    best = yaml.safe_load((run / "best.yaml").read_text())
    assert best["task"]["kind"] == kind
    assert best["task"]["labels"] == {"tagging": ["O", "B-bad", "B-good"], "multi_label": ["bad", "good"]}[kind]
    assert best["task"]["metric"] == {"tagging": "entity_f1", "multi_label": "micro_f1"}[kind]
    assert all(0 <= s <= 1 for row in best["comparison"] for s in (row["validation"] or {}).get("values", ()))


def test_a_training_evaluates_and_predicts_the_same_score(found, tmp_path, capsys):
    kind, files, run = found
    argv = ("--steps", "6", "--device", "cpu", "--dtype", "fp32", "--seeds", "1")
    assert call("train", run, *argv, "--output", tmp_path / "out") == 0
    capsys.readouterr()
    assert call("evaluate", tmp_path / "out", "--test", files["validation"], "--device", "cpu", "--json") == 0
    score = json.loads(capsys.readouterr().out)["score"]
    given = tmp_path / "given.jsonl"
    assert call("predict", tmp_path / "out", "--input", files["validation"], "--output", given, "--device", "cpu") == 0
    made = pd.read_json(given, lines=True)
    text, label = OWN[kind]
    truth = [row[label] for row in rows(40, 40)]
    assert made[text].tolist() == [row[text] for row in rows(40, 40)]
    if kind == "tagging":
        from seqeval.metrics import f1_score

        assert list(map(len, made["predicted_tags"])) == list(map(len, truth))
        assert f1_score(truth, made["predicted_tags"].tolist(), zero_division=0) == pytest.approx(score)
    else:
        right = sum(len(set(own) & set(true)) for own, true in zip(made["predicted_labels"], truth, strict=True))
        n = sum(len(own) + len(true) for own, true in zip(made["predicted_labels"], truth, strict=True))
        assert 2 * right / max(1, n) == pytest.approx(score)


def test_a_merged_export_predicts_the_same_in_transformers_alone(found, tmp_path):
    kind, files, run = found
    argv = ("--method", "lora", "--budget", "20%", "--model", run.parent.parent / "model", "--train", files["train"])
    more = ("--validation", files["validation"], "--steps", "6", "--device", "cpu", "--dtype", "fp32")
    assert call("train", *argv, *more, "--output", tmp_path / "out") == 0
    assert call("export", tmp_path / "out", "--format", "merged", "--output", tmp_path / "m") == 0
    given = tmp_path / "given.jsonl"
    assert call("predict", tmp_path / "out", "--input", files["validation"], "--output", given, "--device", "cpu") == 0
    auto = {"tagging": AutoModelForTokenClassification, "multi_label": AutoModelForSequenceClassification}[kind]
    plain, tokenizer = auto.from_pretrained(tmp_path / "m"), AutoTokenizer.from_pretrained(tmp_path / "m")
    for row in map(json.loads, given.read_text().splitlines()):
        ids = tokenizer(" ".join(row["tokens"]) if kind == "tagging" else row["text"], return_tensors="pt")["input_ids"]
        with torch.no_grad():
            logits = plain(input_ids=ids).logits[0]
        if kind == "tagging":  # of the tiny tokenizer, every word is one token
            assert [plain.config.id2label[int(i)] for i in logits.argmax(-1)] == row["predicted_tags"]
        else:
            assert plain.config.problem_type == "multi_label_classification"
            own = [plain.config.id2label[i] for i, value in enumerate(logits.sigmoid()) if value >= 0.5]
            assert own == row["predicted_labels"]


@pytest.mark.slow
def test_objects_of_a_session_are_taken(found, tmp_path):
    kind, _, run = found
    data = datasets.Dataset.from_list([{key: row[key] for key in OWN[kind]} for row in rows(40, 1)])
    result = peftsearch.search(
        model=str(run.parent.parent / "model"), train_dataset=data, eval_dataset=data, budget="20%", runs=tmp_path,
        strategy="random", trials=1, steps=4, search_steps=2, seeds=1, device="cpu", progress=False, workers=1,
    )  # fmt: skip
    assert result.best.task.kind == kind


def test_faults_are_one_line(found, tmp_path, capsys):
    kind, files, run = found
    bad = tmp_path / "bad.jsonl"
    bad.write_text(files["train"].read_text() + json.dumps({"tokens": ["good"], "tags": [], "text": "", "labels": []}))
    argv = ("run", "--budget", "20%", "--model", run.parent.parent / "model", "--runs", tmp_path, "--kind", kind)
    assert "1 of 61 rows are faulty" in refused(capsys, *argv, "--train", bad)
    assert "--class-weights balanced: is not for" in refused(
        capsys, *argv, "--train", files["train"], "--class-weights", "balanced"
    )
    assert "choose one of" in refused(capsys, *argv, "--train", files["train"], "--metric", "matthews")


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama"])
@pytest.mark.parametrize(("kind", "n_outputs"), [("tagging", 3), ("question_answering", 2)])
def test_every_method_trains_a_head_on_each_token(family, kind, n_outputs, tmp_path):
    loaded = load_backbone(save_model(tmp_path / family, family), num_labels=n_outputs, problem_type=kind)
    model, backbone = loaded.model, loaded.backbone
    assert len(backbone.head) == 1
    ids = torch.randint(5, 90, (2, 7), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = model.eval()(input_ids=ids).logits
    for name in usable_methods(detect(model)):
        n_params = smallest_budget(uniform(name), backbone)
        budget = Budget(text="some", n_params=n_params, n_backbone=backbone.n_params)
        with inject(model, fit(uniform(name), backbone, budget), backbone, seed=1):
            assert model(input_ids=ids).logits.shape == (2, 7, n_outputs), name
        with torch.no_grad():
            assert torch.equal(model(input_ids=ids).logits, before), name
