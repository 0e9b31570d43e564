"""A generation from its run to trained, scored, written and exported texts."""

import json
import math

import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from transformers import AutoModelForCausalLM

import peftsearch
from peftsearch.backbone.load import load_backbone
from peftsearch.cli.train import text_lines
from peftsearch.engine.generation import generate, score_pairs
from peftsearch.tasks.encoding.encode import encode
from tests.generators import generate_arguments, save_generator
from tests.runs import call, refused
from tests.tasks import resolve_task
from tests.trainer.test_prediction import read

CPU = {"batch_size": 16, "device": torch.device("cpu"), "autocast": None}


@pytest.fixture(scope="module")
def trained(llama, pairs, tmp_path_factory):
    """A run, and the training in full of what it found, with two seeds."""
    folder = tmp_path_factory.mktemp("generation")
    more = ("--test", str(pairs[1]), "--template", "{prompt} : {completion}", "--trials", "1")
    assert call(*generate_arguments(llama, pairs, folder, *more)) == 0
    argv = ("--steps", "6", "--eval-every", "3", "--seeds", "2", "--device", "cpu", "--output", folder / "trained")
    assert call("train", folder / "r", *argv) == 0
    return folder / "trained"


def metrics(output):
    return json.loads((output / "metrics.json").read_text())


def split_of(output, pairs, loaded):
    """The validation file as the training saw it, from the task's own loader."""
    task = resolve_task(train=pairs[0], validation=pairs[1], kind="generation", template="{prompt} : {completion}")
    length = yaml.safe_load((output / "training.yaml").read_text())["training"]["max_length"]
    return encode(task, loaded.tokenizer, min(length, 64)).validation


def test_metrics_are_those_of_score_pairs_on_the_kept_weights(trained, pairs):
    found = metrics(trained)
    loaded = peftsearch.load(None, trained)
    model = load_backbone(loaded.backbone.name, num_labels=0, problem_type="generation")
    split = split_of(trained, pairs, model)
    own = found["seeds"][found["seed"]]
    values = {name: score_pairs(loaded.model, split, name, **CPU)[0] for name in ("log_likelihood", "bleu", "rouge_l")}
    assert own["test"] == pytest.approx(values["log_likelihood"], abs=1e-5)
    assert own["validation"] == pytest.approx(own["test"], abs=1e-5), "both are of one file here"
    assert own["texts"]["perplexity"] == pytest.approx(math.exp(-values["log_likelihood"]), rel=1e-4)
    assert own["texts"]["bleu"] == pytest.approx(values["bleu"])
    assert own["texts"]["rouge_l"] == pytest.approx(values["rouge_l"])
    assert (found["texts"]["split"], found["texts"]["n_prompts"], found["n_test"]) == ("test", 4, 8)
    means = [seed["texts"]["rouge_l"] for seed in found["seeds"]]
    assert found["texts"]["rouge_l"]["mean"] == pytest.approx(sum(means) / 2)
    assert found["majority"] is None


def test_training_lowers_the_perplexity_of_the_frozen_model(trained, llama, pairs):
    loaded = load_backbone(llama, num_labels=0, problem_type="generation")
    frozen = score_pairs(loaded.model, split_of(trained, pairs, loaded), "log_likelihood", **CPU)[0]
    assert metrics(trained)["test"]["mean"] > frozen


def test_the_card_is_that_of_a_generator(trained):
    data = ModelCard.load(trained / "README.md").data
    assert data.pipeline_tag == "text-generation"
    assert {"perplexity", "bleu", "rouge"} == set(data.metrics)
    assert "--input prompts.csv" in (trained / "README.md").read_text()
    assert "a head of" not in (trained / "README.md").read_text()


def test_evaluate_gives_what_the_training_wrote(trained, pairs, capsys):
    found = metrics(trained)
    wanted = found["seeds"][found["seed"]]
    for more in ((), ("--test", pairs[1])):
        capsys.readouterr()
        assert call("evaluate", trained, "--json", *more) == 0
        told = json.loads(capsys.readouterr().out)
        assert told["scores"] == pytest.approx(wanted["texts"])
        assert (told["metric"], told["n"], told["n_prompts"]) == ("log_likelihood", 8, 4)
    assert call("evaluate", trained, "--metric", "bleu") == 0
    assert "bleu on pairs-train, test (4 prompts, 8 references): " in capsys.readouterr().out


def test_predict_writes_a_text_a_row(trained, pairs, tmp_path):
    prompts = [json.loads(line)["meaning_representation"] for line in pairs[1].read_text().splitlines()]
    source, made = tmp_path / "prompts.csv", tmp_path / "made.jsonl"
    source.write_text("id,mr\n" + "".join(f"{i},{prompt}\n" for i, prompt in enumerate(prompts)))
    assert call("predict", trained, "--input", source, "--prompt-column", "mr", "--output", made) == 0
    rows = read(made)
    assert list(rows.columns) == ["id", "mr", "predicted_text"]
    loaded = peftsearch.load(None, trained)
    tokens = load_backbone(loaded.backbone.name, num_labels=0, problem_type="generation")
    split = split_of(trained, pairs, tokens)
    texts = generate(loaded.model, split, **CPU)
    assert list(rows["predicted_text"]) == [texts[i] for i, group in enumerate(split.groups) for _ in group]
    assert len(set(texts)) > 1


def test_full_fine_tuning_of_a_seq2seq_model_by_rouge(pairs, tmp_path, capsys):
    model = save_generator(tmp_path / "bart", "bart")
    argv = ["train", "--method", "full", "--model", model, "--train", pairs[0], "--validation", pairs[1], "--kind"]
    argv += ["generation", "--metric", "rouge_l", "--steps", "2", "--device", "cpu", "--output", tmp_path / "full"]
    assert call(*argv) == 0
    out = capsys.readouterr().out
    assert "perplexity on validation, 4 prompts: " in out
    found = metrics(tmp_path / "full")
    assert found["texts"]["rouge_l"]["mean"] == found["validation"]["mean"]
    assert call("evaluate", tmp_path / "full", "--json") == 0
    assert json.loads(capsys.readouterr().out)["score"] == pytest.approx(found["validation"]["mean"])


def test_a_metric_whose_package_is_missing_is_left_out_and_named(pairs, llama, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("peftsearch.engine.generation.is_installed", lambda metric: metric != "bleu")
    argv = ["train", "--method", "lora", "--budget", "10%", "--model", llama, "--train", pairs[0], "--validation"]
    argv += [pairs[1], "--kind", "generation", "--steps", "1", "--device", "cpu", "--output", tmp_path / "out"]
    assert call(*argv) == 0
    assert "left out: bleu; pip install 'peftsearch[generation]'" in capsys.readouterr().out
    assert "bleu" not in metrics(tmp_path / "out")["texts"]


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")  # peft itself asks by the old name
def test_a_language_model_is_exported(pairs, llama, tmp_path):
    import peft

    argv = ["train", "--method", "lora", "--budget", "10%", "--model", llama, "--train", pairs[0], "--validation"]
    argv += [pairs[1], "--kind", "generation", "--steps", "3", "--device", "cpu", "--output", tmp_path / "out"]
    assert call(*argv) == 0
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        wanted = peftsearch.load(None, tmp_path / "out").model.eval()(ids).logits
        for form in ("merged", "peft"):
            assert call("export", tmp_path / "out", "--format", form, "--output", tmp_path / form) == 0
        merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()(ids).logits
        base = AutoModelForCausalLM.from_pretrained(llama)
        got = peft.PeftModel.from_pretrained(base, tmp_path / "peft").eval()(ids).logits
    torch.testing.assert_close(merged, wanted, atol=1e-5 * float(wanted.abs().max()), rtol=0)
    torch.testing.assert_close(got, wanted, atol=1e-5 * float(wanted.abs().max()), rtol=0)


class TestRefused:
    def test_columns_of_another_kind(self, trained, pairs, tmp_path, capsys):
        line = refused(
            capsys, "predict", trained, "--input", pairs[1], "--text-column", "x", "--output", tmp_path / "o.csv"
        )
        assert "--text-column: " in line
        assert "named with --prompt-column" in line
        assert not (tmp_path / "o.csv").exists()

    def test_a_task_with_a_name(self, trained, capsys):
        assert "whose data are files; give --test" in refused(capsys, "evaluate", trained, "--task", "sentiment")

    def test_a_file_without_the_column(self, trained, tmp_path, capsys):
        (tmp_path / "in.csv").write_text("id,mr\n1,name w1\n")
        argv = ("predict", trained, "--input", tmp_path / "in.csv", "--output", tmp_path / "o.csv")
        line = refused(capsys, *argv)
        assert "no column 'meaning_representation'" in line
        assert "--prompt-column" in line

    def test_a_prompt_column_of_a_classification(self, calm, tmp_path, capsys):
        _, model, files = calm
        argv = ["train", "--method", "head", "--model", model, "--train", files[0], "--validation", files[1], "--steps"]
        assert call(*argv, "1", "--device", "cpu", "--output", tmp_path / "t") == 0
        capsys.readouterr()
        line = refused(capsys, "evaluate", tmp_path / "t", "--prompt-column", "text")
        assert "was trained on a classification" in line


def test_a_generation_of_which_every_seed_diverged_has_nothing_to_tell():
    assert list(text_lines({"split": "test", "n_prompts": 4})) == []
