"""Exports: HF peft and transformers, without peftsearch, give the trained model's logits; what cannot be is refused."""

import json
import pickle

import peft
import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

import peftsearch
from peftsearch.architecture import Architecture, Placement
from peftsearch.backbone.load import load_backbone
from peftsearch.injection import inject, save_state
from peftsearch.methods import METHODS
from tests import runs
from tests.found import best_of
from tests.methods import available, disturb
from tests.runs import call, save_model
from tests.tiny import outline, tiny_input

HYBRID = {"lora": (1, 2, 3, 2), "bitfit": (0, 1, 1, 0), "adapter": (0, 2, 0, 2), "prefix": (3, 0, 0, 1)}


def placed(backbone, sizes):
    """Sizes of each method on each of the four blocks; 0 leaves it out."""
    return Architecture(
        placements=tuple(
            Placement(stack=b.stack, block=b.index, method=m, size=s[b.index], n_params=METHODS[m].count(b, s[b.index]))
            for b in backbone.blocks
            for m, s in sizes.items()
            if s[b.index]
        )
    )


def logits(model):
    with torch.no_grad():
        return model.eval()(**tiny_input(model)).logits


class Run:
    """A folder as a run leaves it, with the logits of its first and its second seed."""

    def __init__(self, path, family="bert", seeds=(1000, 1001), **sizes):
        self.path, self.model = path / "run", str(save_model(path / "model", family))
        loaded = load_backbone(self.model, num_labels=2)
        self.plain = logits(loaded.model)
        architecture = placed(
            loaded.backbone, {m: s for m, s in sizes.items() if m in available(loaded.backbone, **sizes)}
        )
        self.path.mkdir()
        best = best_of(loaded.backbone, lora=1) | {"architecture": architecture.to_dict()}
        (self.path / "best.yaml").write_text(yaml.safe_dump(best, sort_keys=False))
        self.logits = {}
        for i, seed in enumerate(seeds):
            with inject(loaded.model, architecture, loaded.backbone):
                disturb(loaded.model, std=0.3 + i)
                with torch.no_grad():
                    for path in loaded.backbone.head:
                        for parameter in loaded.model.get_submodule(path).parameters():
                            parameter += 0.5 * torch.linspace(-1, 1, parameter.numel()).view(parameter.shape)
                self.logits[seed] = logits(loaded.model)
                save_state(loaded.model, self.path / "confirmed" / f"trial-3-seed{seed}.safetensors")
        assert (self.logits[seeds[0]] - self.plain).abs().max() > 0.05

    def export(self, form, output, *more):
        assert call("export", self.path, "--format", form, "--output", output, *more) == 0


def refused(capsys, *argv):
    capsys.readouterr()  # progress of what was saved for the test
    return runs.refused(capsys, *argv)


def close(got, wanted):
    torch.testing.assert_close(got, wanted, atol=1e-5 * max(1.0, float(wanted.abs().max())), rtol=0)


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path, **HYBRID)


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")  # peft itself asks by the old name
@pytest.mark.parametrize(
    ("family", "biases"),
    [
        ("bert", (0, 1, 3, 2)),
        ("roberta", (0, 0, 0, 0)),
        ("distilbert", (3, 0, 0, 3)),
        ("electra", (0, 0, 0, 0)),
        ("gpt2", (0, 1, 3, 2)),
        ("opt", (0, 1, 0, 0)),
        ("llama", (0, 0, 0, 0)),
    ],
)
def test_peft_loads_lora_of_any_ranks_with_biases_and_head(family, biases, tmp_path, capsys):
    run = Run(tmp_path, family, lora=(1, 0, 3, 2), **({"bitfit": biases} if any(biases) else {}))
    run.export("peft", tmp_path / "out")
    base = AutoModelForSequenceClassification.from_pretrained(run.model)
    close(logits(peft.PeftModel.from_pretrained(base, tmp_path / "out")), run.logits[1000])
    assert "same logits to" in capsys.readouterr().out
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    fused = family == "gpt2"
    assert len(config["target_modules"]) == (3 if fused else 6)
    assert sorted({config["r"], *config["rank_pattern"].values()}) == ([2, 4, 6] if fused else [1, 2, 3])
    assert config["use_rslora"]
    assert config["bias"] == ("all" if any(biases) else "none")


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")
def test_biases_of_lora_maps_alone_train_on_alone(tmp_path):
    run = Run(tmp_path, lora=(1, 2, 0, 1), bitfit=(1, 1, 0, 0))
    run.export("peft", tmp_path / "out")
    base = AutoModelForSequenceClassification.from_pretrained(run.model)
    model = peft.PeftModel.from_pretrained(base, tmp_path / "out", is_trainable=True)
    close(logits(model), run.logits[1000])
    assert model.peft_config["default"].bias == "lora_only"
    model.save_pretrained(tmp_path / "again")
    base = AutoModelForSequenceClassification.from_pretrained(run.model)
    close(logits(peft.PeftModel.from_pretrained(base, tmp_path / "again")), run.logits[1000])


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
    run.export("merged", tmp_path / "out")
    assert "adapter, prefix on" in capsys.readouterr().out.replace("prefix, adapter", "adapter, prefix")
    rest = peftsearch.load(None, tmp_path / "out" / "adapter")
    close(logits(rest.model), run.logits[1000])
    assert {p.method for p in rest.architecture.placements} == {"adapter", "prefix"}
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    assert (logits(plain) - run.logits[1000]).abs().max() > 1e-3


def test_the_own_format_is_that_of_save_and_exports_again(run, tmp_path):
    run.export("peftsearch", tmp_path / "own")
    close(logits(peftsearch.load(None, tmp_path / "own").model), run.logits[1000])
    assert call("export", tmp_path / "own", "--format", "merged", "--output", tmp_path / "merged") == 0
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
    from peftsearch.export.adapterhub import _config

    for family, crosses in (("bart", True), ("bert", False)):
        adapter, pfeiffer, prefix = (_config(m, 2, outline(family)) for m in ("adapter", "adapter_pfeiffer", "prefix"))
        assert (adapter["cross_adapter"], pfeiffer["cross_adapter"]) == (crosses, False)
        assert prefix["cross_prefix"] == crosses


def test_a_reduction_factor_gives_every_width_back():
    from peftsearch.export.adapterhub import _reduction_factor

    for hidden in (32, 384, 768, 1023):
        for width in range(1, hidden + 1):
            assert int(hidden // _reduction_factor(width, hidden)) == width  # as adapters computes it


@pytest.mark.parametrize(
    ("form", "sizes", "message"),
    [
        (
            "peft", HYBRID,
            "HF peft cannot hold adapter on encoder blocks 1, 3 (it has no bottleneck adapter); prefix on encoder "
            "blocks 0, 3 (its prefix moves the positions of the text, which makes it another model); formats that can: "
            "merged (what does not merge beside it), peftsearch",
        ),
        ("peft", {"bitfit": (1, 1, 1, 0)}, "bitfit on encoder blocks 0-2 (it trains biases only beside LoRA); formats "
         "that can: merged (what does not merge beside it), peftsearch"),
        ("adapters", HYBRID, "cannot hold bitfit on encoder blocks 1-2 (it has no BitFit); formats that can: merged"),
        ("peft", {"ia3": (1, 1, 0, 0)}, "ia3 on encoder blocks 0-1 (this export does not write it); formats that can: "
         "merged"),
        ("merged", {"prefix": (1, 1, 0, 0)}, "prefix on encoder blocks 0-1 (it does not merge); formats that can: "
         "adapters (the configuration), peftsearch"),
        ("adapters", {"adapter": (2, 1, 0, 0), "adapter_parallel": (0, 1, 1, 0)}, "cannot hold adapter_parallel on "
         "encoder blocks 1 (it has one bottleneck a place); formats that can: peftsearch"),
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
    argv = ["export", run.path, "--format", "merged", "--output"]
    out = tmp_path / "out"
    out.mkdir()
    (out / "model.safetensors.index.json").write_text("{}")
    assert "exists and is not empty; give another, or --overwrite" in refused(capsys, *argv, out)
    assert [p.name for p in out.iterdir()] == ["model.safetensors.index.json"]
    assert call(*argv, out, "--overwrite") == 0
    assert not (out / "model.safetensors.index.json").exists(), "transformers would look for its shards"
    assert AutoModelForSequenceClassification.from_pretrained(out).num_labels == 2
    for source in (run.path, run.model):
        assert "is what is exported from; name another folder" in refused(capsys, *argv, source, "--overwrite")
    assert "was not confirmed with seed 5 (it has [1000, 1001])" in refused(capsys, *argv, tmp_path / "x", "--seed", 5)
    assert "no such file" in refused(capsys, "export", tmp_path / "no", *argv[2:], tmp_path / "x")


def test_a_backbone_of_another_shape_is_refused_by_its_first_mismatch(run, tmp_path, capsys):
    run.export("peftsearch", tmp_path / "own")
    other = str(save_model(tmp_path / "other", "roberta"))
    argv = ["--format", "peftsearch", "--output", tmp_path / "out", "--model", other]
    assert "it is a bert there and this model is a roberta" in refused(capsys, "export", tmp_path / "own", *argv)
    assert "found on bert with 4 encoder blocks, this model is roberta" in refused(capsys, "export", run.path, *argv)


def test_the_pick_of_a_real_run_is_exported_with_its_confirmed_parameters(finished, tmp_path):
    assert call("export", finished, "--format", "peftsearch", "--output", tmp_path / "out") == 0
    best = yaml.safe_load((finished / "best.yaml").read_text())
    first = min((finished / "confirmed").glob(f"{best['name'].replace(' ', '-')}-seed*.safetensors"))
    kept, exported = load_file(first), load_file(tmp_path / "out" / "peftsearch.safetensors")
    assert kept.keys() == exported.keys()
    assert all(torch.equal(kept[name], exported[name]) for name in kept)
