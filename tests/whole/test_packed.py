"""`train --quantize`: the packed backbone is trained on, resumed, evaluated, predicted with and exported."""

import json

import peft
import pytest
import torch
import yaml
from transformers import AutoModelForSequenceClassification, BitsAndBytesConfig

import peftsearch
from peftsearch.backbone.load import load_backbone
from peftsearch.backbone.quantised import dequantise, quantisation_of
from peftsearch.injection.inject import inject
from peftsearch.injection.states import save_state
from tests.found import best_of
from tests.methods import disturb
from tests.quantised import evaluate, save
from tests.runs import call, refused, save_task

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """A folder with a model that NF4 can pack, and its files."""
    folder = tmp_path_factory.mktemp("packed")
    return folder, save(folder / "model"), save_task(folder)


@pytest.fixture(scope="module")
def train(packed):
    _, model, files = packed

    def run(output, *more, method="lora"):
        budget = () if method in ("full", "head") else ("--budget", "10%")
        source = ("--model", model, "--train", files[0], "--validation", files[1])
        steps = ("--steps", "4", "--eval-every", "2", "--device", "cpu")
        return call("train", "--method", method, *budget, *source, *steps, "--output", output, *more)

    return run


@pytest.fixture(scope="module", params=["nf4", "int8"])
def trained(request, packed, train):
    output = packed[0] / f"trained-{request.param}"
    assert train(output, "--quantize", request.param) == 0
    return request.param, output


@pytest.fixture(scope="module", params=["nf4", "int8"])
def run(request, packed):
    """A run's folder on a packed backbone, and the logits of what it found there and on the weights it stands for."""
    folder = packed[0] / f"run-{request.param}"
    loaded = load_backbone(packed[1], num_labels=2, quantize=request.param)
    best = best_of(loaded.backbone, lora=2, bitfit=3)
    best["model"]["quantize"] = request.param
    best["budget"] = best["budget"] | {"text": "10%"}
    best["training"] = best["training"] | {"batch_size": 16, "max_length": 64}
    best["task"]["source"] = "files"
    folder.mkdir()
    (folder / "best.yaml").write_text(yaml.safe_dump(best, sort_keys=False))
    with inject(loaded.model, peftsearch.Architecture.from_dict(best["architecture"]), loaded.backbone):
        disturb(loaded.model)
        logits = [evaluate(loaded.model)]
        save_state(loaded.model, folder / "confirmed" / "trial-3-seed7.safetensors")
        dequantise(loaded.model)
        logits.append(evaluate(loaded.model))
    return request.param, folder, logits


def settings(output):
    return yaml.safe_load((output / "training.yaml").read_text())


def close(got, wanted):
    torch.testing.assert_close(got, wanted, atol=1e-5 * max(1.0, float(wanted.abs().max())), rtol=0)


def test_what_was_trained_scores_alike_on_the_same_packed_backbone(trained, packed, tmp_path, capsys):
    how, output = trained
    files = packed[2]
    assert settings(output)["model"]["quantize"] == how
    assert f"the frozen ones packed in {how}" in (output / "README.md").read_text()
    loaded = peftsearch.load(None, output)
    assert quantisation_of(loaded.model) == how
    for more in ((), ("--model", packed[1])):
        capsys.readouterr()
        assert call("evaluate", output, "--test", files[1], "--json", *more) == 0
        score = json.loads(capsys.readouterr().out)["score"]
        assert score == json.loads((output / "metrics.json").read_text())["validation"]["mean"]
    assert call("predict", output, "--input", files[1], "--output", tmp_path / "made.csv") == 0


def test_the_training_is_that_of_packed_weights(trained, train, tmp_path):
    """The losses are not those of plain weights, and near them: packing rounds."""
    _, output = trained
    assert train(tmp_path / "plain", "--quantize", "none") == 0
    assert settings(tmp_path / "plain")["model"]["quantize"] is None
    losses = [
        [float(line.split(",")[2]) for line in (folder / "curve.csv").read_text().splitlines()[1:]]
        for folder in (output, tmp_path / "plain")
    ]
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], abs=0.2)


def test_resuming_sees_another_packing(trained, train, capsys):
    how, output = trained
    capsys.readouterr()
    assert train(output, "--resume") == 2
    assert f"model.quantize is '{how}' there and None here" in capsys.readouterr().err


def test_the_default_is_what_the_run_used(run, packed, tmp_path, capsys):
    how, folder, _ = run
    files = packed[2]
    argv = ("--train", files[0], "--validation", files[1], "--steps", "2", "--device", "cpu", "--output")
    assert call("train", folder, *argv, tmp_path / "own") == 0
    assert settings(tmp_path / "own")["model"]["quantize"] == how
    assert f"in {how}, " in capsys.readouterr().out
    assert call("train", folder, "--quantize", "none", *argv, tmp_path / "plain") == 0
    assert settings(tmp_path / "plain")["model"]["quantize"] is None
    assert call("train", folder, "--method", "full", *argv, tmp_path / "full") == 0
    assert settings(tmp_path / "full")["model"]["quantize"] is None
    assert f"not the run's {how}" in capsys.readouterr().out


def test_merged_is_the_plain_model_that_the_packed_one_stands_for(run, tmp_path, capsys):
    how, folder, (packed_logits, wanted) = run
    assert call("export", folder, "--format", "merged", "--output", tmp_path / "out") == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "dequantised" in line]
    assert len(lines) == 1
    assert f"12 {how} maps were dequantised first" in lines[0]
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    assert quantisation_of(model) is None
    close(evaluate(model), wanted)
    if how == "nf4":
        close(wanted, packed_logits)


def test_a_checkpoint_on_packed_weights_merges_too(trained, tmp_path, capsys):
    how, output = trained
    assert call("export", output, "--format", "merged", "--output", tmp_path / "out") == 0
    assert f"12 {how} maps were dequantised first" in capsys.readouterr().out
    loaded = peftsearch.load(None, output).model
    dequantise(loaded)
    close(evaluate(AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")), evaluate(loaded))


def test_the_own_format_keeps_the_packing(run, tmp_path):
    how, folder, (wanted, _) = run
    assert call("export", folder, "--format", "peftsearch", "--output", tmp_path / "own") == 0
    loaded = peftsearch.load(None, tmp_path / "own").model
    assert quantisation_of(loaded) == how
    close(evaluate(loaded), wanted)


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")  # peft itself asks by the old name
def test_peft_on_a_base_that_is_packed_likewise_has_the_trained_logits(run, packed, tmp_path, capsys):
    how, folder, (wanted, _) = run
    assert call("export", folder, "--format", "peft", "--output", tmp_path / "out") == 0
    assert "BitsAndBytesConfig" in capsys.readouterr().out
    kind = {
        "nf4": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True},
        "int8": {"load_in_8bit": True},
    }[how]
    config = BitsAndBytesConfig(**kind, llm_int8_skip_modules=["classifier", "bert.pooler.dense"])
    base = AutoModelForSequenceClassification.from_pretrained(
        packed[1], quantization_config=config, device_map={"": "cpu"}
    )
    for module in base.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False  # its repacking rounds scales
    got = evaluate(peft.PeftModel.from_pretrained(base, tmp_path / "out"))
    assert (got - wanted).abs().max() < (1e-5 if how == "nf4" else 0.05) * wanted.abs().max()  # int8 rounds activations


@pytest.mark.parametrize(
    ("more", "method", "told"),
    [
        (("--quantize", "nf3"), "lora", "did you mean 'nf4'"),
        (("--quantize", "nf4"), "full", "--method full trains the weights themselves"),
    ],
)
def test_refused(packed, more, method, told, tmp_path, capsys):
    budget = () if method == "full" else ("--budget", "10%")
    line = refused(capsys, "train", "--method", method, *budget, *more, "--output", tmp_path / "o")
    assert told in line
    assert not (tmp_path / "o").exists()
