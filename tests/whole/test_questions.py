"""Extractive question answering, from a search to predictions and exports on a tiny model."""

import json
import random

import datasets
import pandas as pd
import pytest
import torch
import yaml
from transformers import AutoModelForQuestionAnswering, AutoTokenizer

import peftsearch
from peftsearch.tasks.span_metrics import answer_f1
from tests.runs import NEGATIVE, POSITIVE, QUICK, WORDS, call, refused, save_model

SIZE = ("--strategy", QUICK, "--trials", "3", "--steps", "4", "--search-steps", "2", "--seeds", "2", "--device", "cpu")


def rows(n, seed):
    """Which word of a sentence is good, or bad? Some sentences have none."""
    rng, made = random.Random(seed), []
    for _ in range(n):
        words = [rng.choice(WORDS) for _ in range(rng.randint(3, 7))]
        asked, among = rng.choice([("good", POSITIVE), ("bad", NEGATIVE)])
        found = next((w for w in words if w in among), None)
        context = " ".join(words)
        answers = {"text": [found] if found else [], "answer_start": [context.index(found)] if found else []}
        made.append({"question": asked, "context": context, "answers": answers})
    return made


def save(path, data):
    path.write_text("".join(json.dumps(row) + "\n" for row in data))
    return path


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Files and the finished run."""
    folder = tmp_path_factory.mktemp("questions")
    files = {split: save(folder / f"{split}.jsonl", rows(n, n)) for split, n in (("train", 60), ("validation", 40))}
    data = ("--model", save_model(folder / "model"), "--train", files["train"], "--validation", files["validation"])
    assert call("run", "--budget", "20%", *data, *SIZE, "--name", "r", "--runs", folder / "runs") == 0
    return files, folder / "runs" / "r"


def test_a_search_ends_in_a_verdict(found):
    best = yaml.safe_load((found[1] / "best.yaml").read_text())
    assert (best["task"]["kind"], best["task"]["metric"]) == ("question_answering", "answer_f1")
    scores = [s for row in best["comparison"] for s in (row["validation"] or {}).get("values", ())]
    assert scores
    assert all(0 <= s <= 1 for s in scores)


def test_a_training_evaluates_and_predicts_the_same_score(found, tmp_path, capsys):
    files, run = found
    argv = ("--steps", "6", "--device", "cpu", "--dtype", "fp32", "--seeds", "1")
    assert call("train", run, *argv, "--output", tmp_path / "out") == 0
    capsys.readouterr()
    assert call("evaluate", tmp_path / "out", "--test", files["validation"], "--device", "cpu", "--json") == 0
    score = json.loads(capsys.readouterr().out)["score"]
    given = tmp_path / "given.jsonl"
    assert call("predict", tmp_path / "out", "--input", files["validation"], "--output", given, "--device", "cpu") == 0
    made = pd.read_json(given, lines=True, convert_axes=False)
    answers = made["predicted_answer"].tolist()
    assert answer_f1(answers, [row["answers"]["text"] for row in rows(40, 40)]) == pytest.approx(score)
    for context, answer, start in zip(made["context"], answers, made["predicted_start"], strict=True):
        assert pd.isna(start) if answer == "" else context[int(start) :].startswith(answer)


def test_a_merged_export_predicts_the_same_in_transformers_alone(found, tmp_path):
    files, run = found
    argv = ("--method", "lora", "--budget", "20%", "--model", run.parent.parent / "model", "--train", files["train"])
    more = ("--validation", files["validation"], "--steps", "30", "--device", "cpu", "--dtype", "fp32")
    assert call("train", *argv, *more, "--output", tmp_path / "out") == 0
    assert call("export", tmp_path / "out", "--format", "merged", "--output", tmp_path / "m") == 0
    given = tmp_path / "given.jsonl"
    assert call("predict", tmp_path / "out", "--input", files["validation"], "--output", given, "--device", "cpu") == 0
    plain = AutoModelForQuestionAnswering.from_pretrained(tmp_path / "m")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "m")
    for row in map(json.loads, given.read_text().splitlines()):
        # The tiny tokenizer puts nothing between two texts, which are joined by a line break; every word is a token.
        ids = tokenizer(f"{row['question']}\n{row['context']}", return_tensors="pt")["input_ids"]
        words = row["context"].split()
        with torch.no_grad():
            out = plain(input_ids=ids)
        own = [0, *range(ids.shape[1] - len(words), ids.shape[1])]
        first, last = out.start_logits[0, own].log_softmax(0), out.end_logits[0, own].log_softmax(0)
        every = {(a, b): float(first[a] + last[b]) for a in range(1, len(own)) for b in range(a, len(own))}
        (a, b), best = max(every.items(), key=lambda item: item[1])
        answer = " ".join(words[a - 1 : b]) if best > float(first[0] + last[0]) else ""
        assert answer == row["predicted_answer"]
    assert "AutoModelForQuestionAnswering" in (tmp_path / "m" / "README.md").read_text()


@pytest.mark.slow
def test_objects_of_a_session_are_taken(found, tmp_path):
    _, run = found
    data = datasets.Dataset.from_list(rows(40, 1))
    result = peftsearch.search(
        model=str(run.parent.parent / "model"), train_dataset=data, eval_dataset=data, budget="20%", runs=tmp_path,
        strategy="random", trials=1, steps=4, search_steps=2, seeds=1, device="cpu", progress=False, workers=1,
    )  # fmt: skip
    assert result.best.task.kind == "question_answering"


def test_faults_are_one_line(found, tmp_path, capsys):
    files, run = found
    argv = ("run", "--budget", "20%", "--model", run.parent.parent / "model", "--runs", tmp_path)
    for option, value in (("--class-weights", "balanced"), ("--label-smoothing", "0.1")):
        told = refused(capsys, *argv, "--train", files["train"], option, value)
        assert "is not for extractive question answering" in told
    assert "choose one of: answer_f1, answer_match" in refused(
        capsys, *argv, "--train", files["train"], "--metric", "accuracy"
    )
