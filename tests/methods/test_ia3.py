"""IA3 against HF peft with equal vectors, its counts against the paper's, and its merging."""

from __future__ import annotations

import peft
import pytest
import torch
import transformers
from torch import nn

from peftsearch.backbone.detect import detect
from peftsearch.backbone.quantised import dequantise
from peftsearch.injection.inject import inject
from peftsearch.injection.merging import merged
from peftsearch.methods import METHODS
from tests import generators
from tests.methods import disturb, make, place
from tests.quantised import evaluate, load
from tests.tiny import tiny_input

TARGETS = {
    "bert": (["key", "value"], ["layer.[0-9]+.output.dense"]),
    "distilbert": (["k_lin", "v_lin"], ["ffn.lin2"]),
    "opt": (["k_proj", "v_proj"], ["fc2"]),
    "llama": (["k_proj", "v_proj"], ["down_proj"]),
    "qwen3": (["k_proj", "v_proj"], ["down_proj"]),
    "gpt2": (["attn.c_attn"], ["mlp.c_proj"]),
    "bart": (["k_proj", "v_proj"], ["fc2"]),
    "t5": (["k", "v"], ["wo"]),
}
"""Modules whose outputs, and modules whose inputs, HF peft has to scale."""


def build(family: str) -> nn.Module:
    return generators.build(family) if family in ("bart", "t5") else make(family)


def run(model: nn.Module, family: str) -> torch.Tensor:
    inputs = tiny_input(model)
    if family in ("bart", "t5"):
        inputs["decoder_input_ids"] = inputs["input_ids"].flip(1)
    with torch.no_grad():
        logits: torch.Tensor = model(**inputs).logits
    return logits


def theirs_of(model: nn.Module, family: str) -> nn.Module:
    outputs, inputs = TARGETS[family]
    joined = "|".join(name.replace("[0-9]+", r"\d+") for name in inputs)
    pattern = rf".*\.({'|'.join(outputs)}|{joined})"
    return peft.get_peft_model(
        model,
        peft.IA3Config(target_modules=pattern, feedforward_modules=rf".*\.({joined})", fan_in_fan_out=family == "gpt2"),
    ).eval()


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")  # peft itself asks by the old name
@pytest.mark.parametrize("family", TARGETS)
@torch.no_grad()
def test_equals_peft(family: str) -> None:
    ours, theirs = build(family), build(family)
    backbone = detect(ours)
    plain = run(ours, family)
    injection = inject(ours, place(backbone, ia3=1), backbone)
    disturb(ours, std=0.3)
    wrapped = theirs_of(theirs, family)
    n_query = sum(b.attention.query.d_out for b in backbone.blocks) if family == "gpt2" else 0  # it scales queries too
    assert wrapped.get_nb_trainable_parameters()[0] == injection.architecture.n_params + n_query
    for block in backbone.blocks:
        scales = injection.injected[f"{block.stack}_{block.index}_ia3"]
        for name, p in METHODS["ia3"].scaled(block).items():
            layer = theirs.get_submodule(p.path).ia3_l["default"]
            layer[p.start : p.start + p.d_out] += scales.get_submodule(name).delta[:, None]
        theirs.get_submodule(block.ffn.output.path).ia3_l["default"] += scales.get_submodule("ffn").delta
    expected = run(wrapped, family)
    assert (expected - plain).abs().max() > 1e-2
    torch.testing.assert_close(run(ours, family), expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("family", ["bart", "t5"])
def test_counts_of_an_encoder_decoder_are_the_papers(family: str) -> None:
    """2205.05638 sec. 3.3: L (d_k + d_v + d_ff) in an encoder and L (2 d_k + 2 d_v + d_ff) in a decoder."""
    backbone = detect(build(family))
    d_k, d_ff = 32, 64
    assert place(backbone, ia3=1).n_params == 2 * (2 * d_k + d_ff) + 2 * (4 * d_k + d_ff)


def test_percentage_of_t0_3b() -> None:
    """0.02 % (survey 2303.15647) of T0-3B, the paper's model, which has the shape of T5 1.1 XL."""
    config = transformers.T5Config(
        vocab_size=32128, d_model=2048, d_kv=64, d_ff=5120, num_layers=24, num_heads=32, feed_forward_proj="gated-gelu",
        tie_word_embeddings=False, decoder_start_token_id=0,
    )  # fmt: skip
    with torch.device("meta"):
        model = transformers.T5ForConditionalGeneration(config)
    n_params = place(detect(model), ia3=1).n_params
    assert n_params == 24 * (2 * 2048 + 5120) + 24 * (4 * 2048 + 5120)
    assert round(100 * n_params / sum(p.numel() for p in model.parameters()), 2) == 0.02


@pytest.mark.parametrize("family", [*TARGETS, "qwen2"])
@torch.no_grad()
def test_merges_beside_methods_that_act_on_the_same_maps(family: str) -> None:
    model = build(family)
    backbone = detect(model)
    others = {"bitfit": 3} if METHODS["bitfit"].obstacle(backbone.blocks[0]) is None else {}
    inject(model, place(backbone, ia3=1, lora=2, adapter=2, **others), backbone)
    disturb(model)
    unmerged = run(model, family)
    before = [list(m._forward_pre_hooks.items()) for m in model.modules()]
    with merged(model):
        torch.testing.assert_close(run(model, family), unmerged, atol=1e-5, rtol=1e-5)
        owners = {type(h.__self__).__name__ for m in model.modules() for h in m._forward_hooks.values()}
        assert owners == {"Bottleneck"}
    assert [list(m._forward_pre_hooks.items()) for m in model.modules()] == before
    assert torch.equal(run(model, family), unmerged)


@pytest.mark.parametrize(("family", "how"), [("bert", "nf4"), ("gpt2", "nf4"), ("bert", "int8")])
def test_packed_weights_keep_it_and_dequantised_ones_take_it_in(family: str, how: str) -> None:
    loaded = load(family, how)
    model = loaded.model
    inject(model, place(loaded.backbone, ia3=1), loaded.backbone)
    disturb(model)
    unmerged = evaluate(model)
    output = loaded.backbone.blocks[0].ffn.output.path
    with merged(model):
        assert [type(h.__self__).__name__ for h in model.get_submodule(output)._forward_hooks.values()] == [
            "InputScale"
        ]
        torch.testing.assert_close(evaluate(model), unmerged, atol=1e-5, rtol=1e-5)
    dequantise(model)
    plain = evaluate(model)
    # int8 rounds activations too, which the weights that it stands for do not.
    assert (plain - unmerged).abs().max() < (1e-5 if how == "nf4" else 0.05) * unmerged.abs().max()
    with merged(model):
        assert not model.get_submodule(output)._forward_hooks
        torch.testing.assert_close(evaluate(model), plain, atol=1e-5, rtol=1e-5)
