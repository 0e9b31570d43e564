"""Exports: HF peft and transformers, without peftsearch, give the trained model's logits; what cannot be is refused."""

import json
import pickle

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

import peftsearch
from tests.exports import Run, close, logits, refused
from tests.runs import call, save_model
from tests.tiny import outline

HYBRID = {"lora": (1, 2, 3, 2), "bitfit": (0, 1, 1, 0), "adapter": (0, 2, 0, 2), "prefix": (3, 0, 0, 1)}


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path, **HYBRID)


@pytest.mark.parametrize("family", ["bert", "distilbert", "gpt2", "opt", "llama"])
def test_merged_is_a_plain_model(family, tmp_path):
    run = Run(tmp_path, family, lora=(1, 0, 3, 2), bitfit=(1, 1, 0, 1))
    run.export("merged", tmp_path / "out")
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    close(logits(model), run.logits[1000])
    assert model.config.id2label == {0: "no", 1: "yes"}
    assert not list((tmp_path / "out").rglob("*peftsearch*"))


def test_a_merged_model_that_reads_otherwise_from_its_files_is_refused(tmp_path, capsys):
    """RoBERTa counts positions from its padding id, and this tokenizer pads with another than the model's own."""
    run = Run(tmp_path, "roberta", lora=(1, 0, 3, 2))
    line = refused(capsys, "export", run.path, "--format", "merged", "--output", tmp_path / "out")
    assert "merged: its logits differ from the trained model's by" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_what_does_not_merge_stays_beside_the_merged_model(family, tmp_path, capsys):
    run = Run(tmp_path, family, **HYBRID)
    line = refused(capsys, "export", run.path, "--format", "merged", "--output", tmp_path / "whole")
    assert "which do not merge; --format peftsearch keeps the design whole, --partial" in line
    run.export("merged", tmp_path / "out", "--partial")
    assert "adapter, prefix on" in capsys.readouterr().out.replace("prefix, adapter", "adapter, prefix")
    rest = peftsearch.load(None, tmp_path / "out" / "adapter")
    close(logits(rest.model), run.logits[1000])
    assert {p.method for p in rest.architecture.placements} == {"adapter", "prefix"}
    with pytest.raises((OSError, ValueError), match="config"):
        AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")  # it is not the trained model
    assert "do not merge and are in `adapter/`" in (tmp_path / "out" / "README.md").read_text()
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out" / "backbone")
    assert (logits(plain) - run.logits[1000]).abs().max() > 1e-3


def test_a_generator_with_an_output_map_of_its_own_is_exported_in_two_parts(tmp_path):
    run = Run(tmp_path, "llama", kind="generation", **HYBRID)
    run.export("merged", tmp_path / "out", "--partial")
    rest = peftsearch.load(None, tmp_path / "out" / "adapter")
    close(logits(rest.model), run.logits[1000])
    assert {p.method for p in rest.architecture.placements} == {"adapter", "prefix"}


def test_the_own_format_is_that_of_save_and_exports_again(run, tmp_path):
    run.export("peftsearch", tmp_path / "own")
    close(logits(peftsearch.load(None, tmp_path / "own").model), run.logits[1000])
    assert call("export", tmp_path / "own", "--format", "merged", "--partial", "--output", tmp_path / "merged") == 0
    close(logits(peftsearch.load(None, tmp_path / "merged" / "adapter").model), run.logits[1000])


def test_a_seed_and_a_file_can_be_named(run, tmp_path):
    best = run.path / "best.yaml"
    argv = ["--format", "peftsearch", "--output", tmp_path / "own", "--seed", "1001"]
    assert call("export", best, *argv) == 0
    assert torch.equal(logits(peftsearch.load(None, tmp_path / "own").model), run.logits[1001])


def test_one_of_several_tasks_is_exported(tmp_path, capsys):
    run = Run(tmp_path, seeds=(7,), lora=(1, 1, 1, 1))
    best = yaml.safe_load((run.path / "best.yaml").read_text())
    one = best["task"]
    best["task"] = {"name": "a+b", "tasks": [one | {"name": "a"}, one | {"name": "b", "labels": ["x", "y"]}]}
    (run.path / "best.yaml").write_text(yaml.safe_dump(best, sort_keys=False))
    state = run.path / "confirmed" / "trial-3-seed7.safetensors"
    state.rename(state.with_name("trial-3-seed7-task2.safetensors"))
    state.with_name("trial-3-seed7-task1.safetensors").write_bytes(b"")
    line = refused(capsys, "export", run.path, "--format", "merged", "--output", tmp_path / "out")
    assert "parameters of several tasks; give one with --task (a, b)" in line
    run.export("merged", tmp_path / "out", "--task", "b")
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    close(logits(model), run.logits[7])
    assert model.config.id2label == {0: "x", 1: "y"}


def test_adapters_configuration_names_method_size_and_blocks(tmp_path):
    sizes = {"lora": (4, 2, 0, 4), "adapter": (3, 3, 0, 5), "adapter_parallel": (0, 0, 2, 0), "prefix": (0, 0, 6, 0)}
    run = Run(tmp_path, **sizes)
    for state in (run.path / "confirmed").iterdir():
        state.unlink()  # the configuration needs none
    run.export("adapters", tmp_path / "out")
    unions = [json.loads((tmp_path / "out" / f"adapters-{i}.json").read_text()) for i in (1, 2)]
    assert [union["architecture"] for union in unions] == ["union", "union"]
    low, narrow, wide, parallel, prefix = unions[0]["configs"]
    (high,) = unions[1]["configs"]  # a union of adapters takes one rank
    assert (low["r"], low["attn_matrices"], low["leave_out"]) == (2, ["q", "v"], [0, 2, 3])
    assert (high["r"], high["alpha"], high["leave_out"]) == (4, 2.0, [1, 2])
    assert [(int(32 // c["reduction_factor"]), c["leave_out"]) for c in (narrow, wide)] == [(3, [2, 3]), (5, [0, 1, 2])]
    assert narrow["mh_adapter"]
    assert narrow["output_adapter"]
    assert (parallel["is_parallel"], parallel["scaling"], parallel["mh_adapter"]) == (True, 4.0, False)
    assert parallel["leave_out"] == [0, 1, 3]
    assert (prefix["prefix_length"], prefix["flat"], prefix["leave_out"]) == (6, True, [0, 1, 3])


def test_a_decoder_that_reads_an_encoder_is_told_to_adapters():
    from peftsearch.exporter.adapterhub import _config

    for family, crosses in (("bart", True), ("bert", False)):
        adapter, pfeiffer, prefix = (_config(m, 2, outline(family)) for m in ("adapter", "adapter_pfeiffer", "prefix"))
        assert (adapter["cross_adapter"], pfeiffer["cross_adapter"]) == (crosses, False)
        assert prefix["cross_prefix"] == crosses


def test_a_reduction_factor_gives_every_width_back():
    from peftsearch.exporter.adapterhub import _reduction_factor

    for hidden in (32, 384, 768, 1023):
        for width in range(1, hidden + 1):
            assert int(hidden // _reduction_factor(width, hidden)) == width  # as adapters computes it


@pytest.mark.parametrize(
    ("form", "sizes", "message"),
    [
        (
            "peft", HYBRID,
            "HF peft cannot hold adapter on encoder blocks 1, 3 (it has no bottleneck adapter); prefix on encoder "
            "blocks 0, 3 (its prefix shifts the positions of the text, which changes the model); formats that can: "
            "merged --partial, peftsearch",
        ),
        ("peft", {"bitfit": (1, 1, 1, 0)}, "bitfit on encoder blocks 0-2 (it trains biases only together with LoRA "
         "or DoRA); formats that can: merged, peftsearch"),
        ("adapters", HYBRID, "cannot hold bitfit on encoder blocks 1-2 (it has no BitFit); formats that can: "
         "merged --partial"),
        ("peft", {"said": (9, 0, 0, 0)}, "said on encoder blocks 0 (this export does not write it); formats that can: "
         "merged"),
        ("peft", {"lora": (1, 1, 0, 1), "ia3": (0, 0, 1, 0)}, "HF peft cannot hold ia3 on encoder blocks 2 (one "
         "adapter holds one method, here lora); formats that can: merged"),
        ("peft", {"ia3": (1, 1, 0, 0), "bitfit": (0, 0, 1, 0)}, "cannot hold bitfit on encoder blocks 2 (it trains "
         "biases only together with LoRA or DoRA); formats"),
        ("merged", {"prefix": (1, 1, 0, 0)}, "prefix on encoder blocks 0-1 (it does not merge); formats that can: "
         "adapters (the configuration), peftsearch"),
        ("adapters", {"adapter": (2, 1, 0, 0), "adapter_parallel": (0, 1, 1, 0)}, "cannot hold adapter_parallel on "
         "encoder blocks 1 (it allows one bottleneck per place); formats that can: peftsearch"),
        ("peft", {}, "HF peft cannot hold the head alone; formats that can: merged, peftsearch"),
    ],
)  # fmt: skip
def test_what_a_format_cannot_hold_is_named_with_the_formats_that_can(form, sizes, message, tmp_path, capsys):
    run = Run(tmp_path, **sizes)
    line = refused(capsys, "export", run.path, "--format", form, "--output", tmp_path / "out")
    assert message in line
    assert not (tmp_path / "out").exists()


def spoil(run, how):
    state = run.path / "confirmed" / "trial-3-seed1000.safetensors"
    best = run.path / "best.yaml"
    match how:
        case "pickle":
            state.write_bytes(pickle.dumps({"w": [1.0]}))
        case "cut":
            state.write_bytes(state.read_bytes()[:100])
        case "no parameters":
            for path in state.parent.iterdir():
                path.unlink()
        case "best":
            best.write_text("format: peftsearch-best/1\nname: x\n")
        case "other architecture":
            best.write_text(best.read_text().replace("n_params: 128", "n_params: 129"))
        case "other weights":
            save_model(run.path.parent / "model", "roberta")
        case "no model":
            best.write_text(best.read_text().replace(run.model, run.model + "-gone"))
        case "no best":
            best.unlink()


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("pickle", "trial-3-seed1000.safetensors: not a readable safetensors file"),
        ("cut", "not a readable safetensors file"),
        ("no parameters", "the run's confirmed parameters are not there"),
        ("best", "best.yaml: is damaged"),
        ("other architecture", "is damaged: architecture: n_params says"),
        ("other weights", "which is sha256:"),
        ("no model", "model-gone': no such folder"),
        ("no best", "no best.yaml"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(run, how, message, tmp_path, capsys):
    spoil(run, how)
    before = sorted(tmp_path.rglob("*"))
    line = refused(capsys, "export", run.path, "--format", "peftsearch", "--output", tmp_path / "out")
    assert message in line
    assert sorted(tmp_path.rglob("*")) == before


def test_an_output_that_exists_and_sources_are_never_written_over(run, tmp_path, capsys):
    argv = ["export", run.path, "--partial", "--format", "merged", "--output"]
    out = tmp_path / "out"
    out.mkdir()
    (out / "model.safetensors.index.json").write_text("{}")
    assert "exists and is not empty; give another folder, or --overwrite" in refused(capsys, *argv, out)
    assert [p.name for p in out.iterdir()] == ["model.safetensors.index.json"]
    assert call(*argv, out, "--overwrite") == 0
    assert not (out / "model.safetensors.index.json").exists(), "transformers would look for its shards"
    assert AutoModelForSequenceClassification.from_pretrained(out / "backbone").num_labels == 2
    for source in (run.path, run.model):
        assert "is the source of the export; name another folder" in refused(capsys, *argv, source, "--overwrite")
    assert "was not confirmed with seed 5 (it has [1000, 1001])" in refused(capsys, *argv, tmp_path / "x", "--seed", 5)
    assert "no such file" in refused(capsys, "export", tmp_path / "no", *argv[2:], tmp_path / "x")


def test_a_backbone_of_another_shape_is_refused_by_its_first_mismatch(run, tmp_path, capsys):
    run.export("peftsearch", tmp_path / "own")
    other = str(save_model(tmp_path / "other", "roberta"))
    argv = ["--format", "peftsearch", "--output", tmp_path / "out", "--model", other]
    assert "it was saved from a bert and this model is a roberta" in refused(capsys, "export", tmp_path / "own", *argv)
    assert "found on bert with 4 encoder blocks, this model is roberta" in refused(capsys, "export", run.path, *argv)


def test_the_pick_of_a_real_run_is_exported_with_its_confirmed_parameters(finished, tmp_path):
    assert call("export", finished, "--format", "peftsearch", "--output", tmp_path / "out") == 0
    best = yaml.safe_load((finished / "best.yaml").read_text())
    first = min((finished / "confirmed").glob(f"{best['name'].replace(' ', '-')}-seed*.safetensors"))
    kept, exported = load_file(first), load_file(tmp_path / "out" / "peftsearch.safetensors")
    assert kept.keys() == exported.keys()
    assert all(torch.equal(kept[name], exported[name]) for name in kept)
