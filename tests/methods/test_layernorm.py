"""LayerNorm tuning against HF peft, against training the norms themselves, and on norms of other kinds."""

from __future__ import annotations

from typing import Any

import peft
import pytest
import torch
import transformers
from torch import nn

from peftsearch.backbone.detect import detect
from peftsearch.injection.inject import inject
from peftsearch.injection.merging import merged
from peftsearch.methods import METHODS
from peftsearch.methods.layers.layernorm import unit_weight
from tests import generators
from tests.methods import available, disturb, make, place
from tests.tiny import GROUPED, SHAPE, TOKENS, build, tiny_input


def gemma() -> Any:
    config = transformers.GemmaConfig(**SHAPE, **TOKENS, **GROUPED, head_dim=8)
    model = build(config, 2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
    return model


def logits(model: nn.Module) -> torch.Tensor:
    result: torch.Tensor = model(**tiny_input(model)).logits
    return result


def build_family(family: str) -> Any:
    return gemma() if family == "gemma" else make(family)


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")  # peft itself asks by the old name
@pytest.mark.filterwarnings("ignore:Unsupported layer type:UserWarning")  # peft's word on norms; it copies them whole
@pytest.mark.parametrize("family", ["bert", "distilbert", "gpt2", "llama", "qwen3", "gemma"])
@torch.no_grad()
def test_equals_peft(family: str) -> None:
    ours, theirs = build_family(family), build_family(family)
    backbone = detect(ours)
    plain = logits(ours)
    injection = inject(ours, place(backbone, layernorm=2), backbone)
    disturb(ours)
    paths = [norm.path for block in backbone.blocks for norm in block.norms]
    wrapped = peft.get_peft_model(theirs, peft.LNTuningConfig(target_modules=paths)).eval()
    assert wrapped.get_nb_trainable_parameters()[0] == injection.architecture.n_params
    for block in backbone.blocks:
        deltas = injection.injected[f"{block.stack}_{block.index}_layernorm"]
        for i, norm in enumerate(block.norms):
            layer, delta = theirs.get_submodule(norm.path).ln_tuning_layers["default"], deltas.get_submodule(f"norm{i}")
            layer.weight += delta.gain
            if norm.bias:
                layer.bias += delta.bias
    expected = logits(wrapped)
    assert (expected - plain).abs().max() > 1e-2
    torch.testing.assert_close(logits(ours), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama", "gemma"])
def test_gradient_is_the_norms_own(family: str) -> None:
    model = build_family(family)
    backbone = detect(model)
    inputs = tiny_input(model) | {"labels": torch.arange(3) % 2}
    model(**inputs).loss.backward()
    own = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    with inject(model, place(backbone, layernorm=2), backbone) as injection:
        model(**inputs).loss.backward()
        for block in backbone.blocks:
            deltas = injection.injected[f"{block.stack}_{block.index}_layernorm"]
            for i, norm in enumerate(block.norms):
                delta: Any = deltas.get_submodule(f"norm{i}")
                torch.testing.assert_close(delta.gain.grad, own[f"{norm.path}.weight"], atol=1e-5, rtol=1e-4)
                if norm.bias:
                    torch.testing.assert_close(delta.bias.grad, own[f"{norm.path}.bias"], atol=1e-5, rtol=1e-4)


def test_subsets_and_counts() -> None:
    method = METHODS["layernorm"]
    bert, llama = (detect(make(family)).blocks[0] for family in ("bert", "llama"))
    assert [(method.label(bert, size), method.count(bert, size)) for size in (1, 2)] == [
        ("gains", 2 * 32),
        ("gains+biases", 4 * 32),
    ]
    assert (method.max_size(llama), method.count(llama, 1)) == (1, 2 * 32)
    model = make()
    expected = sum(p.numel() for name, p in model.named_parameters() if ".layer." in name and "LayerNorm" in name)
    assert place(detect(model), layernorm=2).n_params == expected


def test_norms_of_all_kinds_are_told_apart() -> None:
    kinds = {"bert": 1.0, "llama": 1.0, "gemma": 0.0}
    for family, unit in kinds.items():
        model = build_family(family)
        norm = detect(model).blocks[0].norms[0]
        assert unit_weight(model.get_submodule(norm.path), norm.width) == unit
    t5 = generators.build("t5")
    assert unit_weight(t5.get_submodule(detect(t5).blocks[0].norms[0].path), 32) == 1.0


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama", "qwen2", "gemma"])
@torch.no_grad()
def test_merges_beside_bitfit(family: str) -> None:
    model = build_family(family)
    backbone = detect(model)
    plain = logits(model)
    inject(model, place(backbone, **available(backbone, layernorm=2, bitfit=3)), backbone)
    assert torch.equal(logits(model), plain)
    disturb(model)
    unmerged = logits(model)
    with merged(model):
        assert not any(module._forward_hooks for module in model.modules())
        torch.testing.assert_close(logits(model), unmerged, atol=1e-5, rtol=1e-5)
