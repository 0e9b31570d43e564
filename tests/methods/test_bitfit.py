"""BitFit against training the biases themselves, and its named subsets."""

from __future__ import annotations

import pytest
import torch

from peftsearch.architecture import Architecture, Placement
from peftsearch.backbone.detect import detect
from peftsearch.errors import MethodError
from peftsearch.injection import inject
from peftsearch.methods import METHODS
from peftsearch.methods.bitfit import subsets
from tests.methods import make, place
from tests.tiny import tiny_input


def test_subsets_of_bert_are_the_papers() -> None:
    block = detect(make()).blocks[0]
    d, d_ff = block.hidden_size, block.ffn.d_ff
    assert [name for name, _ in subsets(block)] == ["query", "query+ffn_in", "all"]
    assert [METHODS["bitfit"].count(block, size) for size in (1, 2, 3)] == [d, d + d_ff, 7 * d + d_ff]


def test_all_biases_of_the_blocks_are_counted() -> None:
    model = make()
    expected = sum(p.numel() for name, p in model.named_parameters() if ".layer." in name and name.endswith("bias"))
    assert place(detect(model), bitfit=3).n_params == expected


def test_missing_subsets_are_skipped() -> None:
    block = detect(make("qwen2")).blocks[0]
    assert [name for name, _ in subsets(block)] == ["query", "all"]
    assert METHODS["bitfit"].count(block, 2) == block.attention.query.d_out + 2 * block.attention.d_kv


def test_backbone_without_biases_is_refused() -> None:
    model = make("llama")
    backbone = detect(model)
    assert subsets(backbone.blocks[0]) == []
    placement = Placement(stack=backbone.blocks[0].stack, block=0, method="bitfit", size=1, n_params=1)
    with pytest.raises(MethodError, match=r"block 0, bitfit: .* has no biases; use lora or adapter there"):
        inject(model, Architecture(placements=(placement,)), backbone)


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_gradient_is_the_biases_own(family: str) -> None:
    """b + delta has the gradient of b: on every map, on slices of fused biases and on norms."""
    model = make(family)
    backbone = detect(model)
    inputs = tiny_input(model) | {"labels": torch.arange(len(tiny_input(model)["input_ids"])) % 2}
    model(**inputs).loss.backward()
    own = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    with inject(model, place(backbone, bitfit=3), backbone) as injection:
        model(**inputs).loss.backward()
        for block in backbone.blocks:
            deltas = injection.injected[f"{block.stack}_{block.index}_bitfit"]
            for bias in subsets(block)[-1][1]:
                expected = own[f"{bias.path}.bias"][bias.start : bias.start + bias.width]
                torch.testing.assert_close(deltas.get_submodule(bias.name).delta.grad, expected, atol=1e-6, rtol=1e-4)
