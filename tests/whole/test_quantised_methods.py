"""What acts on packed backbones: every method, merging, measuring, and a whole run."""

from __future__ import annotations

import copy
from itertools import chain
from math import ceil

import pytest
import torch
import yaml

from peftsearch.backbone.quantised import dequantise, packing_tensors, quantised_maps
from peftsearch.engine.measure import SavedActivations
from peftsearch.injection.inject import inject, param_groups, remove
from peftsearch.injection.merging import merged
from peftsearch.methods import METHODS
from tests.engine.test_measure import FOUR, measure, meter_of
from tests.methods import available, disturb, place, settle
from tests.quantised import CONFIGS, evaluate, load, save, step
from tests.runs import arguments, call, refused

pytestmark = pytest.mark.slow

PAIRS = [(family, how) for family in CONFIGS for how in ("nf4", "int8")]


def everything(model):
    """All that the model computes with, under names: the state dict holds the scales too, but not all of them."""
    beside = {f"beside {i}": tensor for i, tensor in enumerate(packing_tensors(model))}
    return {name: tensor.clone() for name, tensor in (model.state_dict() | beside).items()}


@pytest.mark.parametrize(("family", "how"), PAIRS)
def test_methods_train_themselves_alone_and_leave_the_model_bit_for_bit(family, how):
    loaded = load(family, how)
    model, backbone = loaded.model, loaded.backbone
    before, logits = everything(model), evaluate(model)
    for name in available(backbone, **dict.fromkeys(METHODS, 2)):
        with inject(model, place(backbone, **{name: 2}), backbone):
            settle(model)
            if METHODS[name].exact_at_init:
                torch.testing.assert_close(evaluate(model), logits, atol=1e-5, rtol=1e-5)
            initial = {key: p.detach().clone() for key, p in model.named_parameters() if p.requires_grad}
            optimizer = torch.optim.AdamW(param_groups(model, 1e-2))
            torch.manual_seed(0)  # some methods draw in training
            for _ in range(6):
                optimizer.zero_grad()
                step(model)
                optimizer.step()
                evaluate(model)  # between two steps, where bitsandbytes would repack and lose the gradients
            for key, parameter in model.named_parameters():
                assert (parameter.grad is not None) == (key in initial), (name, key)
                assert key not in initial or not torch.equal(parameter, initial[key]), (name, key)
        after = everything(model)
        assert list(after) == list(before)
        assert all(torch.equal(after[key], before[key]) for key in before), name
        assert torch.equal(evaluate(model), logits), name


@pytest.mark.parametrize("family", CONFIGS)
def test_nf4_gives_the_gradients_of_the_weights_it_stands_for(family):
    gradients = []
    for plain in (False, True):
        loaded = load(family, "nf4")
        if plain:
            dequantise(loaded.model)
        inject(loaded.model, place(loaded.backbone, **available(loaded.backbone, **FOUR)), loaded.backbone)
        disturb(loaded.model)
        step(loaded.model)
        gradients.append({name: p.grad for name, p in loaded.model.named_parameters() if p.grad is not None})
    assert len(gradients[0]) > 8
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], atol=1e-5, rtol=1e-4)


class TestMerging:
    @pytest.mark.parametrize("how", ["nf4", "int8"])
    def test_packed_weights_keep_their_lora_and_dequantised_ones_take_it_in(self, how):
        loaded = load("bert", how)
        model = loaded.model
        inject(model, place(loaded.backbone, lora=2, bitfit=3), loaded.backbone)
        disturb(model)
        unmerged = evaluate(model)
        query = model.get_submodule(loaded.backbone.blocks[0].attention.query.path)
        with merged(model):
            assert [type(hook.__self__).__name__ for hook in query._forward_hooks.values()] == ["LowRank", "BiasDelta"]
            torch.testing.assert_close(evaluate(model), unmerged, atol=1e-5, rtol=1e-5)
        dequantise(model)
        plain = evaluate(model)
        # int8 rounds activations too, which the weights that it stands for do not.
        assert (plain - unmerged).abs().max() < (1e-5 if how == "nf4" else 0.05) * unmerged.abs().max()
        query = model.get_submodule(loaded.backbone.blocks[0].attention.query.path)
        with merged(model):
            assert not query._forward_hooks
            torch.testing.assert_close(evaluate(model), plain, atol=1e-5, rtol=1e-5)
        remove(model)
        assert not query._forward_hooks


class TestMeasures:
    def test_flops_are_those_of_the_plain_model(self):
        for how in ("nf4", "int8"):
            packed, plain = (measure(load("bert", each).model, **FOUR) for each in (how, None))
            assert packed["inference_flops"] == plain["inference_flops"]
            assert packed["train_flops"] == plain["train_flops"]

    def test_memory_is_counted_by_real_bytes(self):
        packed, plain = load("bert", "nf4").model, load("bert", None).model
        sizes = [found.in_features * found.out_features for _, found in quantised_maps(packed)]
        # Half a byte a weight, a byte for the scale of 64, four for the scale of 256 of those, and the offset.
        beside = {t.data_ptr(): t.nbytes for t in packing_tensors(packed) if t.numel() in (16, 256)}  # code books
        own = sum(n // 2 + n // 64 + 4 * ceil(n / 64 / 256) + 4 for n in sizes) + sum(beside.values())
        held = {t.data_ptr(): t.nbytes for t in chain(packed.parameters(), packed.buffers(), packing_tensors(packed))}
        n_plain = sum(t.nbytes for t in chain(plain.parameters(), plain.buffers()))
        assert n_plain - sum(held.values()) == 4 * sum(sizes) - own
        peaks = [measure(model)["peak_memory_bytes"] for model in (packed, plain)]
        assert peaks[1] - peaks[0] == 4 * sum(sizes) - own

    def test_inputs_that_8_bit_maps_hold_are_counted(self):
        architecture = {"lora": 2}
        peaks = [measure(load("bert", how).model, **architecture)["peak_memory_bytes"] for how in ("int8", None)]
        n_weights = sum(
            found.in_features * found.out_features for _, found in quantised_maps(load("bert", "int8").model)
        )
        n_outputs = sum(found.out_features for _, found in quantised_maps(load("bert", "int8").model))
        saved = 3 * n_weights - 4 * n_outputs  # int8 instead of float32, and a float32 scale for each output
        assert peaks[1] - peaks[0] < saved
        assert SavedActivations(load("bert", "int8").model).n_bytes == 0

    @pytest.mark.parametrize("how", ["nf4", "int8"])
    def test_the_second_set_of_modules_stands_on_the_same_tensors(self, how):
        model = load("bert", how).model
        before = evaluate(model)
        bare = meter_of(model)._bare
        assert {t.data_ptr() for t in packing_tensors(bare)} == {t.data_ptr() for t in packing_tensors(model)}
        assert torch.equal(evaluate(bare), before)
        assert torch.equal(evaluate(model), before)
        assert torch.equal(evaluate(copy.deepcopy(model)), before)


@pytest.mark.slow
class TestRun:
    def test_from_the_command_line(self, place, tmp_path, capsys):
        files = place[2]
        model = save(tmp_path / "model")
        argv = arguments(model, files, tmp_path / "runs", "--quantize", "nf4", "--budget", "3%", "--trials", "2")
        argv += [
            "--steps",
            "2",
            "--search-steps",
            "1",
            "--confirm-baselines",
            "1",
            "--strategy",
            "random",
            "--space",
            "uniform",
        ]
        assert call(*argv) == 0
        folder = tmp_path / "runs" / "r"
        best = yaml.safe_load((folder / "best.yaml").read_text())
        assert best["model"]["quantize"] == "nf4"
        plain = load("bert", None).backbone.n_params
        assert best["model"]["n_params"] == plain
        assert best["budget"]["n_params"] == int(plain * 0.03)
        capsys.readouterr()
        bare = [word for word in argv if word not in ("--quantize", "nf4")]
        assert "quantize" in refused(capsys, *bare), "the study of packed weights is another"

    def test_refusals(self, args, capsys, tmp_path):
        assert "did you mean 'nf4'" in refused(capsys, *args("--quantize", "nf"))
        assert "not a multiple of 64" in refused(capsys, *args("--quantize", "nf4")), "the tiny model's width is 32"
        assert not (tmp_path / "runs").exists()
