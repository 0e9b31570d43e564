"""Packed backbones: what is packed, what it stands for, how it is counted, that it stays, and what is refused."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import AutoModelForSequenceClassification, BitsAndBytesConfig

from peftsearch.backbone import packing
from peftsearch.backbone.load import load_backbone, n_head_params
from peftsearch.backbone.packing import PACKINGS, check_quantisation
from peftsearch.backbone.quantised import dequantise, dequantised, packing_tensors, quantisation_of, quantised_maps
from peftsearch.design.budget import parse_budget
from peftsearch.design.references import make_reference
from peftsearch.errors import BackboneError, ConfigError
from tests.quantised import CONFIGS, evaluate, folder, load, step
from tests.runs import save_model, save_tokenizer

HALF_GAP = 0.1387
"""Half of the widest gap between two NF4 levels, 0.7230 and 1 (2305.14314, app. E)."""
N_MAPS = {"bert": 2 * 6, "gpt2": 2 * 4, "llama": 2 * 7}
PAIRS = [(family, how) for family in CONFIGS for how in ("nf4", "int8")]


def plain_weight(model: nn.Module, path: str) -> torch.Tensor:
    found = model.get_submodule(path)
    return found.weight.detach() if isinstance(found, nn.Linear) else found.weight.detach().t()


@pytest.mark.parametrize(("family", "how"), PAIRS)
def test_counts_and_anatomy_are_those_of_the_plain_model(family, how):
    packed, plain = load(family, how), load(family, None)
    assert packed.backbone.stacks == plain.backbone.stacks
    assert packed.backbone.head == plain.backbone.head
    assert packed.backbone.n_params == plain.backbone.n_params
    budgets = [parse_budget("1%", loaded.backbone.n_params) for loaded in (packed, plain)]
    assert budgets[0] == budgets[1]
    assert n_head_params(packed) == n_head_params(plain)
    assert len(list(quantised_maps(packed.model))) == N_MAPS[family]
    if how == "nf4":
        assert sum(p.numel() for p in packed.model.parameters()) < plain.backbone.n_params


@pytest.mark.parametrize(("family", "how"), PAIRS)
def test_weights_are_the_nearest_of_their_levels(family, how):
    packed, plain = load(family, how).model, load(family, None).model
    for path, found in quantised_maps(packed):
        weight = plain_weight(plain, path)
        error = (dequantised(found) - weight).abs()
        if how == "nf4":  # a block's scale is itself rounded, hence 5%
            largest = weight.reshape(-1, 64).abs().amax(1, keepdim=True)
            assert (error.reshape(-1, 64) <= (HALF_GAP + 0.05) * largest).all(), path
        else:
            largest = weight.abs().amax(1, keepdim=True)
            assert (error <= (0.5 / 127 + 2e-3) * largest).all(), path
        assert error.max() > 0
    whole = {n: p for n, p in packed.named_parameters() if p.is_floating_point()}
    assert all(torch.equal(p, plain.get_parameter(n)) for n, p in whole.items())


@pytest.mark.parametrize("family", CONFIGS)
def test_nf4_computes_with_the_weights_it_stands_for_in_training_and_evaluation(family):
    model, other = load(family, "nf4").model, load(family, "nf4").model
    assert dequantise(other) == N_MAPS[family]
    for compute in (step, evaluate, step):
        torch.testing.assert_close(compute(model), compute(other), atol=1e-5, rtol=1e-5)


def test_int8_is_near_the_plain_model_in_training_and_evaluation():
    model, plain = load("bert", "int8").model, load("bert", None).model
    for compute in (step, evaluate, step):
        exact = compute(plain)
        assert 0 < (compute(model) - exact).abs().max() < 0.05 * exact.abs().max()


@pytest.mark.parametrize("how", PACKINGS)
def test_a_pickled_copy_computes_and_trains_alike(how):
    loaded = load("bert", how)
    before = evaluate(loaded.model), step(loaded.model)
    copy = pickle.loads(pickle.dumps(loaded.model))
    assert torch.equal(evaluate(copy), before[0])
    assert torch.equal(step(copy), before[1])
    name = "bert.embeddings.LayerNorm.weight"
    assert torch.equal(copy.get_parameter(name).grad, loaded.model.get_parameter(name).grad)


@pytest.mark.parametrize(("family", "how"), [("bert", "nf4"), ("llama", "int8")])
def test_a_dequantised_model_is_saved_and_loaded_as_a_plain_one(family, how, tmp_path):
    model = load(family, how).model
    assert quantisation_of(model) == how
    assert dequantise(model) == N_MAPS[family]
    assert quantisation_of(model) is None
    assert not list(packing_tensors(model))
    assert dequantise(model) == 0
    model.save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    again = load_backbone(tmp_path, num_labels=2)
    assert again.backbone.n_params == load(family, None).backbone.n_params
    assert all(p.dtype == torch.float32 for p in again.model.parameters())
    assert torch.equal(evaluate(again.model), evaluate(model))


def test_a_pooler_and_a_new_head_are_never_packed():
    model = load_backbone(folder("bert").name, num_labels=5, quantize="nf4").model
    packed = dict(quantised_maps(model))
    assert not {"classifier", "bert.pooler.dense"} & set(packed)
    assert evaluate(model).shape == (3, 5)


class TestRefused:
    def test_an_unknown_name(self):
        with pytest.raises(ConfigError, match="unknown quantisation 'nf3'; did you mean 'nf4'"):
            check_quantisation("nf3")

    def test_a_missing_extra(self, monkeypatch):
        monkeypatch.setattr(packing, "find_spec", lambda name: None)
        with pytest.raises(ConfigError, match=r"--quantize nf4 needs bitsandbytes: pip install 'peftsearch\[quant\]'"):
            load("bert", "nf4")

    def test_widths_that_are_no_blocks(self, tmp_path):
        path = save_model(Path(tmp_path))
        with pytest.raises(BackboneError, match=r"20 of its 24 maps.*attention.self.query, 32\); use --quantize int8"):
            load_backbone(path, num_labels=2, quantize="nf4")
        assert load_backbone(path, num_labels=2, quantize="int8").backbone.n_params > 0

    def test_a_model_that_is_quantised_already(self, tmp_path):
        load("bert", "nf4").model.save_pretrained(tmp_path)
        load("bert", "nf4").tokenizer.save_pretrained(tmp_path)
        with pytest.raises(BackboneError, match="quantised already; leave --quantize out"):
            load_backbone(tmp_path, num_labels=2, quantize="nf4")


class TestFilesThatArePacked:
    @pytest.fixture
    @staticmethod
    def path(tmp_path):
        """A packed model, whose other weights are kept in float32."""
        load("bert", "nf4").model.save_pretrained(tmp_path)
        return save_tokenizer(tmp_path)

    def test_other_weights_have_one_precision(self, path):
        """transformers alone reads some of them in the wanted precision, and some in that of the file."""
        model = load_backbone(path, num_labels=2, compute_dtype=torch.bfloat16).model
        whole = {n: p.dtype for n, p in model.named_parameters() if p.is_floating_point()}
        assert {dtype for n, dtype in whole.items() if not n.startswith("classifier")} == {torch.bfloat16}
        with torch.autocast("cpu", torch.bfloat16):
            assert evaluate(model).isfinite().all()

    def test_their_own_weights_are_not_trained(self, path):
        loaded = load_backbone(path, num_labels=2)
        with pytest.raises(
            ConfigError, match=r"--baselines full trains the model's own weights, and those of .* packed"
        ):
            make_reference("full", loaded)

    def test_widths_that_a_cpu_multiplies_wrongly(self, tmp_path):
        path = save_model(Path(tmp_path))
        settings = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", llm_int8_skip_modules=["classifier"]
        )
        model = AutoModelForSequenceClassification.from_pretrained(
            path, quantization_config=settings, device_map={"": "cpu"}
        )
        model.save_pretrained(path)
        with pytest.raises(
            BackboneError, match=r"not a multiple of 64 \(first: .*, 32\), which a CPU multiplies wrongly"
        ):
            load_backbone(path, num_labels=2)


def test_minilm_counts_its_real_parameters_in_less_than_half_the_bytes_of_its_blocks():
    loaded = load_backbone(None, num_labels=2, quantize="nf4")
    assert loaded.backbone.n_params == 22_713_216
    packed = [found for _, found in quantised_maps(loaded.model)]
    assert sum(found.in_features * found.out_features for found in packed) == 6 * 12 * 384 * 384
    n_bytes = sum(t.nbytes for t in {id(t): t for t in packing_tensors(loaded.model)}.values())
    assert n_bytes + sum(found.weight.nbytes for found in packed) < 0.14 * 4 * 6 * 12 * 384 * 384
