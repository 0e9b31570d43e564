"""What an export says of its use: a caller who does what the README says gets what the training had."""

import csv
import json
import random

import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from tests.exports import Run
from tests.generators import save_generator
from tests.runs import WORDS, call, save_model

BRIEF = ("--method", "lora", "--budget", "20%", "--steps", "4", "--device", "cpu", "--dtype", "fp32")


def save_rows(path, label, n=40):
    rng = random.Random(0)
    rows = [f"{' '.join(rng.choices(WORDS, k=6))},{label(i)}\n" for i in range(n)]
    path.write_text("text,label\n" + "".join(rows))
    return path


def trained(tmp_path, label, family="bert"):
    model, rows = save_model(tmp_path / "model", family), save_rows(tmp_path / "train.csv", label)
    assert call("train", *BRIEF, "--model", model, "--train", rows, "--output", tmp_path / "trained") == 0
    return tmp_path / "trained", rows


def block_of(readme):
    """The code of a README."""
    return readme.split("```python\n")[1].split("```")[0]


def test_the_merged_model_of_a_regression_gives_targets(tmp_path):
    folder, rows = trained(tmp_path, lambda i: 250_000 + 1_000.5 * (i % 17))
    assert call("predict", folder, "--input", rows, "--output", tmp_path / "o.csv", "--device", "cpu") == 0
    assert call("export", folder, "--format", "merged", "--output", tmp_path / "out") == 0
    made = list(csv.DictReader((tmp_path / "o.csv").read_text().splitlines()))
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    ids = tokenizer([row["text"] for row in made], padding=True, return_tensors="pt")
    with torch.no_grad():
        got = model(**ids).logits.squeeze(-1)
    wanted = torch.tensor([float(row["predicted_score"]) for row in made])
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1.0)
    assert "folded into the head" in (tmp_path / "out" / "README.md").read_text()


def test_an_adapter_of_a_regression_says_how_to_read_its_outputs(tmp_path):
    pytest.importorskip("peft")
    folder, _ = trained(tmp_path, lambda i: 2.5 + i)
    assert call("export", folder, "--format", "peft", "--output", tmp_path / "out") == 0
    target = json.loads(json.dumps((tmp_path / "out" / "README.md").read_text()))
    assert "target = " in target
    assert 'num_labels=1, problem_type="regression"' in target


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")  # peft itself asks by the old name
def test_what_the_readme_of_an_adapter_says_loads_it_with_its_classes(tmp_path, monkeypatch):
    pytest.importorskip("peft")
    folder, _ = trained(tmp_path, lambda i: ("low", "high", "middle")[i % 3])
    assert call("export", folder, "--format", "peft", "--output", tmp_path / "out") == 0
    monkeypatch.chdir(tmp_path / "out")
    names = {}
    exec(block_of((tmp_path / "out" / "README.md").read_text()), names)
    assert names["model"].config.id2label == {0: "high", 1: "low", 2: "middle"}


def test_pairs_without_a_separator_are_told(tmp_path, capsys):
    model = save_model(tmp_path / "model", "gpt2")
    rng = random.Random(0)
    rows = [f"{' '.join(rng.choices(WORDS, k=4))},{' '.join(rng.choices(WORDS, k=4))},{i % 2}\n" for i in range(40)]
    (tmp_path / "train.csv").write_text("sentence1,sentence2,label\n" + "".join(rows))
    out = tmp_path / "trained"
    assert call("train", *BRIEF, "--model", model, "--train", tmp_path / "train.csv", "--output", out) == 0
    assert call("export", out, "--format", "merged", "--output", tmp_path / "out") == 0
    assert "join them with a line break" in capsys.readouterr().out
    assert "join them with a line break" in (tmp_path / "out" / "README.md").read_text()


def test_the_template_of_a_generation_is_told(tmp_path, capsys):
    model, rows = save_generator(tmp_path / "model", "llama"), tmp_path / "train.jsonl"
    rng = random.Random(0)
    pairs = [{"prompt": rng.choice(WORDS), "completion": rng.choice(WORDS)} for _ in range(20)]
    rows.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    argv = ("--kind", "generation", "--model", model, "--train", rows, "--template", "name : {prompt} is {completion}")
    assert call("train", *BRIEF, *argv, "--output", tmp_path / "trained") == 0
    assert call("export", tmp_path / "trained", "--format", "merged", "--output", tmp_path / "out") == 0
    text = (tmp_path / "out" / "README.md").read_text()
    assert "'name : {prompt} is {completion}'" in text
    assert "max_new_tokens" in text
    assert "pairs" not in text + capsys.readouterr().out


def test_a_partial_export_says_what_a_whole_one_does(tmp_path):
    run = Run(tmp_path, lora=(1, 1, 1, 1), adapter=(1, 1, 1, 1))
    run.export("merged", tmp_path / "out", "--partial")
    text = (tmp_path / "out" / "README.md").read_text()
    assert "Load both" in text
    assert "Classes, in the order of the outputs: 'no', 'yes'." in text


@pytest.mark.parametrize("family", ["bart", "t5"])
def test_a_classifier_that_reads_its_end_token_is_exported(family, tmp_path):
    run = Run(tmp_path, family, lora=(1, 1, 1, 1))
    run.export("merged", tmp_path / "out")
    assert (tmp_path / "out" / "README.md").exists()


def test_a_merged_generator_keeps_the_cache_and_the_precision_of_its_base(tmp_path):
    import transformers

    run = Run(tmp_path, "llama", kind="generation", lora=(1, 1, 1, 1))
    base = transformers.AutoModelForCausalLM.from_pretrained(run.model, dtype=torch.bfloat16)
    base.save_pretrained(run.model)
    assert call("export", run.path, "--format", "merged", "--output", tmp_path / "out", "--model", run.model) == 0
    own, base_config = AutoConfig.from_pretrained(tmp_path / "out"), AutoConfig.from_pretrained(run.model)
    assert (own.use_cache, own.dtype) == (base_config.use_cache, torch.bfloat16)


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")  # peft itself asks by the old name
def test_names_of_classes_are_data_and_no_markup(tmp_path):
    pytest.importorskip("peft")
    folder, _ = trained(tmp_path, lambda i: ("<script>a()</script>", "```")[i % 2])
    assert call("export", folder, "--format", "peft", "--output", tmp_path / "out") == 0
    texts = [(tmp_path / "out" / "README.md").read_text(), (folder / "README.md").read_text()]
    assert all("&lt;script&gt;" in text for text in texts)
    assert texts[0].count("```") == 3  # of the block, and of the class in the list of classes


def test_a_partial_export_takes_the_precision_of_its_base(tmp_path):
    run = Run(tmp_path, "llama", lora=(1, 1, 1, 1), adapter=(1, 1, 1, 1))
    AutoModelForSequenceClassification.from_pretrained(run.model, dtype=torch.bfloat16).save_pretrained(run.model)
    argv = ("--format", "merged", "--partial", "--output", tmp_path / "out", "--model", run.model)
    assert call("export", run.path, *argv) == 0
    assert AutoConfig.from_pretrained(tmp_path / "out" / "backbone").dtype is torch.bfloat16
