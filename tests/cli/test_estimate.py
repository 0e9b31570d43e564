"""`peftsearch estimate` on folders that hold a config and nothing else."""

import json
import re

import pytest
import yaml

from peftsearch.backbone.detect import detect
from peftsearch.design.baselines import uniform
from peftsearch.design.budget import parse_budget
from peftsearch.design.fitting import fit
from tests.found import CONCLUDED
from tests.generators import save_generator
from tests.runs import call, refused
from tests.tiny import FAMILIES


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("configs")
    for family in ("bert", "llama"):
        FAMILIES[family]().config.save_pretrained(root / family)
    return root


@pytest.fixture(scope="module")
def best(folders):
    """A best.yaml of the tiny BERT, with what the command reads of it."""
    backbone = detect(FAMILIES["bert"](), str(folders / "bert"))
    architecture = fit(uniform("adapter"), backbone, parse_budget("5%", backbone.n_params))
    content = {
        "format": "peftsearch-best/1",
        "name": "trial 7",
        **CONCLUDED,
        "design": uniform("adapter").to_dict(),
        "model": {
            "name": backbone.name,
            "model_type": "bert",
            "n_params": backbone.n_params,
            "stacks": {"encoder": 4},
        },
        "architecture": architecture.to_dict(),
    }
    path = folders / "best.yaml"
    path.write_text(yaml.safe_dump(content))
    return path, content


@pytest.fixture
def estimated(capsys):
    def run(*argv):
        capsys.readouterr()
        assert call("estimate", *argv, "--json") == 0
        return json.loads(capsys.readouterr().out)

    return run


def test_lora_at_the_budget_is_the_default(folders, estimated):
    told = estimated("--model", folders / "bert", "--budget", "5%", "--batch", "2", "--seq", "16")
    (name, parts), backbone = next(iter(told["bytes"].items())), detect(FAMILIES["bert"]())
    n_lora = fit(uniform("lora"), backbone, parse_budget("5%", backbone.n_params)).n_params
    assert name == "lora on all blocks, 5%"
    assert told["architecture"]["n_params"] == n_lora
    assert told["n_changed"] == 4 * 2 * 32 * 32, "query and value of each block, whole"
    assert f"changed in the result: {told['n_changed']:,}." in told["notes"][0]
    assert told["n_head"] == 2 * 32 + 2
    assert parts["weights"] == 4 * (backbone.n_params + told["n_head"] + n_lora)
    assert parts["gradients"] == 4 * (n_lora + told["n_head"])
    assert parts["optimizer"] == 2 * parts["gradients"]
    assert parts["hidden_states"] == 4 * 2 * 4 * (20 * 32 * 16 + 3 * 16**2)
    assert parts["total"] == sum(parts[k] for k in ("context", "weights", "gradients", "optimizer", "hidden_states"))


def test_a_generation_keeps_its_logits(tmp_path, estimated):
    model = save_generator(tmp_path / "llama", "llama")
    given = ("--model", model, "--budget", "5%", "--batch", "2", "--seq", "16")
    plain, written = estimated(*given), estimated(*given, "--kind", "generation")
    (parts,), (narrow,) = (
        written["bytes"].values(),
        estimated(*given, "--kind", "generation", "--dtype", "bf16")["bytes"].values(),
    )
    assert next(iter(plain["bytes"].values()))["logits"] == 0
    assert written["n_head"] == 0
    assert parts["logits"] == 2 * 16 * 99 * (4 + 8)
    assert narrow["logits"] == 2 * 16 * 99 * (2 + 4 + 8)


def test_full_alone_and_beside(folders, estimated):
    alone = estimated("--model", folders / "bert", "--full")
    both = estimated("--model", folders / "bert", "--full", "--budget", "5%", "--design", "adapter+prefix")
    assert list(alone["bytes"]) == ["full fine-tuning"]
    assert alone["architecture"] is None
    assert list(both["bytes"]) == ["adapter+prefix on all blocks, 5%", "full fine-tuning"]
    assert both["bytes"]["full fine-tuning"] == alone["bytes"]["full fine-tuning"]
    assert alone["bytes"]["full fine-tuning"]["gradients"] == alone["bytes"]["full fine-tuning"]["weights"]


def test_a_found_architecture_knows_its_model(best, estimated):
    path, content = best
    told = estimated(path, "--dtype", "bf16")
    assert told["architecture"] == content["architecture"]
    parts = told["bytes"]["trial 7"]
    assert parts["gradients"] == 2 * (content["architecture"]["n_params"] + told["n_head"])
    assert parts["fp32_copies"] == 2 * parts["gradients"]
    assert any("keeps injected parameters in fp32" in note for note in told["notes"])


def test_designs_by_name_and_from_a_file(folders, estimated, tmp_path):
    top = tmp_path / "top.yaml"
    top.write_text("{grouping: uniform, allocation: [1, 1, 1, 1], methods: [[], [], [], [lora]]}")
    told = estimated("--model", folders / "bert", "--budget", "5%", "--design", top, "--batch", "1", "--seq", "16")
    assert told["bytes"]["top, 5%"]["hidden_states"] == 4 * (20 * 32 * 16 + 3 * 16**2), "of the last block alone"
    assert estimated("--model", folders / "bert", "--budget", "20%", "--design", "s4-paper")["bytes"]["s4-paper, 20%"]


def test_quantised_weights_are_smaller_and_full_fine_tuning_is_not_quantised(folders, estimated):
    given = ("--model", folders / "bert", "--budget", "5%", "--full")
    plain, nf4, int8 = (estimated(*given, *how)["bytes"] for how in ([], ["--quantize", "nf4"], ["--quantize", "int8"]))
    lora = "lora on all blocks, 5%"
    n_maps = 4 * (4 * 32 * 32 + 2 * 32 * 64)  # the pooler stays whole
    n_outputs = 4 * (5 * 32 + 64)
    beside = 4 * 6 * 4 * (1 + 16 + 256 + 1)  # of each map: the scale of its scales, two code books, an offset
    assert plain[lora]["weights"] - nf4[lora]["weights"] == 4 * n_maps - n_maps // 2 - n_maps // 64 - beside
    assert plain[lora]["weights"] - int8[lora]["weights"] == 3 * n_maps - 4 * n_outputs
    assert nf4["full fine-tuning"] == int8["full fine-tuning"] == plain["full fine-tuning"]


def test_a_found_architecture_is_packed_as_its_run_was(best, estimated, tmp_path):
    def weights(*how):
        return estimated(*how)["bytes"]["trial 7"]["weights"]

    packed = best[1] | {"model": best[1]["model"] | {"quantize": "nf4"}}
    (tmp_path / "best.yaml").write_text(yaml.safe_dump(packed))
    assert weights(tmp_path) == weights(best[0], "--quantize", "nf4") < weights(best[0])
    assert weights(tmp_path, "--quantize", "none") == weights(best[0])


def test_the_notes_have_the_figures_of_attention_weights(folders, estimated):
    (note,) = [
        n
        for n in estimated("--model", folders / "bert", "--full", "--batch", "1", "--seq", "50")["notes"]
        if n.startswith("Attention is sdpa")
    ]
    one_head = 4 * 4 * 3 * 50**2
    assert f"{one_head / 1000:.3g} kB less" in note
    assert f"{3 * one_head / 1000:.3g} kB more" in note


def test_the_table_is_drawn(folders, capsys):
    assert call("estimate", "--model", folders / "bert", "--budget", "5%", "--full", "--dtype", "fp16") == 0
    out = capsys.readouterr().out
    rows = [line for line in out.splitlines() if line.startswith("│")]
    assert [re.split(r"\s{2,}| │", row[2:])[0] for row in rows] == [
        "CUDA context", "weights", "gradients", "optimizer states (AdamW)", "hidden states", "total",
        "fp32 copies of gradients (maybe, not in the total)",
    ]  # fmt: skip
    assert "Left out" in out


class TestRefused:
    @pytest.mark.parametrize(
        ("more", "message"),
        [
            ([], "needs --budget"),
            (["--design", "lora", "--full"], "needs --budget"),
            (["--budget", "0"], "above zero"),
            (["--budget", "-1%"], "above zero"),
            (["--budget", "200%"], "at most 100%"),
            (["--budget", "10"], "needs at least"),
            (["--budget", "5%", "--batch", "0"], "--batch must be from 1 to 1,000,000, got 0"),
            (["--budget", "5%", "--batch", "-4"], "got -4"),
            (["--budget", "5%", "--batch", "9999999999"], "got 9,999,999,999"),
            (["--budget", "5%", "--seq", "0"], "--seq must be from 1"),
            (["--budget", "5%", "--seq", "65"], "has positions for 64 tokens"),
            (["--budget", "5%", "--dtype", "fp23"], "unknown dtype 'fp23'; did you mean"),
            (["--budget", "5%", "--quantize", "nf5"], "unknown quantization 'nf5'; did you mean 'nf4'"),
            (["--budget", "5%", "--design", "lorra"], "unknown method 'lorra'; did you mean 'lora'"),
            (["--budget", "5%", "--design", "no.yaml"], "no.yaml"),
        ],
    )
    def test_options(self, folders, capsys, more, message):
        assert message in refused(capsys, "estimate", "--model", folders / "bert", *more)

    @pytest.mark.parametrize("option", ["--batch", "--seq"])
    def test_what_is_no_number(self, folders, capsys, option):
        assert option in refused(capsys, "estimate", "--model", folders / "bert", "--budget", "5%", option, "many")

    def test_a_model_without_config(self, capsys, tmp_path):
        assert "no config.json" in refused(capsys, "estimate", "--model", tmp_path, "--budget", "5%")
        assert "no such folder" in refused(capsys, "estimate", "--model", tmp_path / "no", "--budget", "5%")

    def test_a_method_that_cannot_act(self, folders, capsys):
        given = ("--model", folders / "llama", "--budget", "5%", "--design", "bitfit")
        assert "bitfit cannot act" in refused(capsys, "estimate", *given)

    def test_sizes_given_twice(self, best, capsys):
        assert "--budget: " in refused(capsys, "estimate", best[0], "--budget", "5%")
        assert "has no confirmed design 'lora'" in refused(capsys, "estimate", best[0], "--design", "lora")

    def test_a_best_yaml_of_another_model(self, best, folders, capsys):
        line = refused(capsys, "estimate", best[0], "--model", folders / "llama")
        assert "model_type is bert there and llama" in line

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"format": "other/1"}, "is not the best.yaml"),
            ({"model": {"name": "x"}}, "is damaged"),
            ({"model": {"stacks": {"encoder": 6}}}, "stacks is {'encoder': 6} there and {'encoder': 4}"),
            ({"model": {"n_params": 7}}, "n_params is 7 there"),
            ({"architecture": {}}, "is damaged: architecture: KeyError"),
            ({"block": 9}, "encoder block 9, adapter:.* has no such block"),
            ({"size": 10_000}, r"encoder block 0, adapter: width 10000 does not have \d+ parameters"),
            ({"method": "lorra"}, "did you mean 'lora'"),
        ],
        ids=str,
    )
    def test_a_best_yaml_that_does_not_fit(self, best, tmp_path, capsys, change, message):
        content = json.loads(json.dumps(best[1]))
        model, entry = change.pop("model", None), content["architecture"]["blocks"][0]
        if model is not None:
            content["model"] = model if model == {"name": "x"} else content["model"] | model
        if "block" in change:
            entry["block"] = change.pop("block")
        if "size" in change:
            entry["methods"]["adapter"]["size"] = change.pop("size")
        if "method" in change:
            entry["methods"] = {change.pop("method"): entry["methods"]["adapter"]}
        (path := tmp_path / "best.yaml").write_text(yaml.safe_dump(content | change))
        assert re.search(message, refused(capsys, "estimate", path))
