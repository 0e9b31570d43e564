"""BitFit against training the biases themselves, and its named subsets."""

from __future__ import annotations

import pytest
import torch

from peftsearch.backbone.detect import detect
from peftsearch.design.architecture import Architecture, Placement
from peftsearch.errors import MethodError
from peftsearch.injection.inject import inject
from peftsearch.methods import METHODS
from peftsearch.methods.bitfit import subsets
from tests.methods import indices, make, place
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


def test_the_query_of_a_decoder_is_that_of_both_its_attentions() -> None:
    block = detect(make("bart")).blocks[-1]
    (_, query), (_, query_ffn), (_, every) = subsets(block)
    assert [bias.name for bias in query] == ["query", "cross_query"]
    assert [bias.name for bias in query_ffn] == ["query", "cross_query", "ffn_in0"]
    assert len(every) == 10 + 3


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


@pytest.mark.parametrize("family", ["bert", "gpt2", "gpt_neox", "bloom", "bart"])
def test_gradient_is_the_biases_own(family: str) -> None:
    """b + delta has the gradient of b: on every map, on slices of fused biases and on norms."""
    model = make(family)
    backbone = detect(model)
    inputs = tiny_input(model) | {"labels": torch.tensor([0, 1, 0])}
    model(**inputs).loss.backward()
    own = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    with inject(model, place(backbone, bitfit=3), backbone) as injection:
        model(**inputs).loss.backward()
        for block in backbone.blocks:
            deltas = injection.injected[f"{block.stack}_{block.index}_bitfit"]
            for bias in subsets(block)[-1][1]:
                where = indices(bias.start, bias.width, bias.d_module, bias.n_pieces)
                expected = own[f"{bias.path}.bias"][where]
                torch.testing.assert_close(deltas.get_submodule(bias.name).delta.grad, expected, atol=1e-6, rtol=1e-4)
