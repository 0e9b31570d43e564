"""DoRA against HF peft with equal weights, its gradient against eq. 11's, and packed weights."""

from __future__ import annotations

from typing import Any

import peft
import pytest
import torch
from torch import nn

from peftsearch.backbone.detect import detect
from peftsearch.backbone.quantised import dequantise
from peftsearch.errors import MethodError
from peftsearch.injection.inject import inject
from peftsearch.injection.merging import merged
from peftsearch.methods import METHODS
from peftsearch.methods.dora import DoRA
from peftsearch.methods.layers.dora import Decomposed
from tests.methods import available, disturb, make, place
from tests.quantised import evaluate, load
from tests.tiny import tiny_input

TARGETS = {
    "bert": ["query", "value"],
    "distilbert": ["q_lin", "v_lin"],
    "opt": ["q_proj", "v_proj"],
    "llama": ["q_proj", "v_proj"],
    "qwen2": ["q_proj", "v_proj"],
    "qwen3": ["q_proj", "v_proj"],
}


def pair(family: str) -> tuple[Any, Any, Any]:
    """Our model, HF peft's with the same weights, and our injection, off its start."""
    ours, theirs = make(family), make(family)
    backbone = detect(ours)
    injection = inject(ours, place(backbone, dora=4), backbone)
    disturb(ours)
    config = peft.LoraConfig(r=4, lora_alpha=1, use_rslora=True, use_dora=True, target_modules=TARGETS[family])
    wrapped = peft.get_peft_model(theirs, config).eval()
    assert wrapped.get_nb_trainable_parameters()[0] == injection.architecture.n_params
    with torch.no_grad():
        for block in backbone.blocks:
            own = injection.injected[f"{block.stack}_{block.index}_dora"]
            for name, p in DoRA().lora.projections(block).items():
                layer, mine = theirs.get_submodule(p.path), own.get_submodule(name)
                layer.lora_A["default"].weight.copy_(mine.a)
                layer.lora_B["default"].weight.copy_(mine.b)
                layer.lora_magnitude_vector["default"].weight += mine.magnitude
    return ours, wrapped, injection


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")  # peft itself asks by the old name
@pytest.mark.parametrize("family", TARGETS)
def test_equals_peft_in_outputs_and_gradients(family: str) -> None:
    ours, wrapped, injection = pair(family)
    plain = make(family)(**tiny_input(ours)).logits
    results = [model(**tiny_input(ours)).logits for model in (ours, wrapped)]
    assert (results[0] - plain).abs().max() > 1e-2
    torch.testing.assert_close(results[0], results[1], atol=1e-5, rtol=1e-5)
    for logits in results:
        logits.square().sum().backward()
    for block in injection.backbone.blocks:
        own = injection.injected[f"{block.stack}_{block.index}_dora"]
        for name, p in DoRA().lora.projections(block).items():
            layer, mine = wrapped.base_model.model.get_submodule(p.path), own.get_submodule(name)
            close = {"atol": 1e-4, "rtol": 1e-3}
            torch.testing.assert_close(mine.a.grad, layer.lora_A["default"].weight.grad, **close)
            torch.testing.assert_close(mine.b.grad, layer.lora_B["default"].weight.grad, **close)
            magnitude = layer.lora_magnitude_vector["default"].weight
            torch.testing.assert_close(mine.magnitude.grad, magnitude.grad, **close)


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama", "qwen2"])
@torch.no_grad()
def test_merged_rows_have_the_magnitude_for_norm(family: str) -> None:
    model = make(family)
    backbone = detect(model)
    inject(model, place(backbone, dora=2), backbone)
    disturb(model)
    hooked = model(**tiny_input(model)).logits

    def rows(path: str) -> torch.Tensor:
        weight = model.get_submodule(path).weight
        return (weight.T if family == "gpt2" else weight).norm(dim=1)

    targets = DoRA().lora.projections(backbone.blocks[0])
    before = {name: rows(p.path) for name, p in targets.items()}
    key = backbone.blocks[0].attention.key
    key_before = rows(key.path)[key.start : key.start + key.d_out]
    own: Any = model.get_submodule(f"peftsearch.{backbone.blocks[0].stack}_0_dora")
    with merged(model):
        assert not any(module._forward_hooks for module in model.modules())
        torch.testing.assert_close(model(**tiny_input(model)).logits, hooked, atol=1e-5, rtol=1e-5)
        for name, p in targets.items():
            found = slice(p.start, p.start + p.d_out)
            wanted = (before[name][found] + own.get_submodule(name).magnitude).abs()
            torch.testing.assert_close(rows(p.path)[found], wanted, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(rows(key.path)[key.start : key.start + key.d_out], key_before)


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama"])
@torch.no_grad()
def test_merges_beside_methods_that_act_on_the_same_maps(family: str) -> None:
    """The norm is that of the pretrained weight whatever else is there, merged or not."""
    model = make(family)
    backbone = detect(model)
    others = available(backbone, lora=2, krona=1, bitfit=3, ia3=1)
    inject(model, place(backbone, dora=2, **others), backbone)
    disturb(model)
    hooked = model(**tiny_input(model)).logits
    with merged(model):
        assert not any(module._forward_hooks for module in model.modules())
        torch.testing.assert_close(model(**tiny_input(model)).logits, hooked, atol=1e-5, rtol=1e-5)


def test_a_row_of_zeros_stays_and_gives_no_nan() -> None:
    model = make()
    block = detect(model).blocks[0]
    linear = nn.Linear(32, 32)
    with torch.no_grad():
        linear.weight[3] = 0.0
    own = Decomposed(block.attention.query, 2, 1.0)
    x = torch.randn(5, 32)
    output = own(linear, (x,), linear(x))
    assert torch.equal(output, linear(x))
    output.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in own.parameters() if p.grad is not None)


@pytest.mark.parametrize(("family", "how"), [("bert", "nf4"), ("gpt2", "nf4"), ("llama", "nf4"), ("bert", "int8")])
def test_packed_weights_are_unpacked_for_the_norm(family: str, how: str) -> None:
    loaded = load(family, how)
    model = loaded.model
    before = evaluate(model)
    inject(model, place(loaded.backbone, dora=2), loaded.backbone)
    assert torch.equal(evaluate(model), before)
    disturb(model)
    unmerged = evaluate(model)
    query = loaded.backbone.blocks[0].attention.query.path
    with merged(model):
        assert model.get_submodule(query)._forward_hooks
    dequantise(model)
    plain = evaluate(model)
    # int8 rounds activations too, which the weights that it stands for do not.
    assert (plain - unmerged).abs().max() < (1e-5 if how == "nf4" else 0.05) * unmerged.abs().max()
    with merged(model):
        assert not model.get_submodule(query)._forward_hooks
        torch.testing.assert_close(evaluate(model), plain, atol=1e-5, rtol=1e-5)


def test_weights_packed_in_another_way_are_refused() -> None:
    model = make()
    backbone = detect(model)
    query: Any = model.get_submodule(backbone.blocks[1].attention.query.path)
    query.weight = nn.Parameter(torch.zeros(512, 1, dtype=torch.uint8), requires_grad=False)
    with pytest.raises(MethodError, match=r"dora: .*query, a Linear with weights of torch\.uint8: .*; use lora there"):
        inject(model, place(backbone, dora=1), backbone)
    assert not any(module._forward_hooks for module in model.modules())


def test_counts() -> None:
    block = detect(make("llama")).blocks[0]
    d, d_kv = 32, 16
    assert METHODS["dora"].count(block, 3) == 3 * (2 * d + d + d_kv) + d + d_kv
    assert METHODS["dora"].changed(block, 3) == d * d + d * d_kv
