"""KronA against HF peft's LoKr with equal factors, against dense Kronecker products, and the order of its shapes."""

from __future__ import annotations

import math

import peft
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from peftsearch.backbone.detect import detect
from peftsearch.errors import MethodError
from peftsearch.injection.inject import inject
from peftsearch.injection.merging import merged
from peftsearch.methods import METHODS
from peftsearch.methods.krona import KronA, factorisations
from peftsearch.methods.layers.krona import multiply
from tests.methods import disturb, make, place
from tests.tiny import tiny_input

TARGETS = {"bert": ["query", "value"], "distilbert": ["q_lin", "v_lin"], "opt": ["q_proj", "v_proj"]}


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")  # peft itself asks by the old name
@pytest.mark.parametrize("family", TARGETS)
@torch.no_grad()
def test_equals_lokr_with_whole_factors(family: str) -> None:
    ours, theirs = make(family), make(family)
    backbone = detect(ours)
    injection = inject(ours, place(backbone, krona=2), backbone)
    disturb(ours)
    # LoKr's own factorisation of 32 is 4 x 8, which makes A 4x4 and B 8x8; with r = alpha its scale is 1.
    wrapped = peft.get_peft_model(theirs, peft.LoKrConfig(r=8, alpha=8, target_modules=TARGETS[family])).eval()
    assert METHODS["krona"].label(backbone.blocks[0], 2) == "A 4x4"
    assert wrapped.get_nb_trainable_parameters()[0] == injection.architecture.n_params
    for block in backbone.blocks:
        for name, p in METHODS["krona"].projections(block).items():
            pair = injection.injected[f"{block.stack}_{block.index}_krona"].get_submodule(name)
            layer = theirs.get_submodule(p.path)
            layer.lokr_w1["default"].copy_(pair.a)
            layer.lokr_w2["default"].copy_(pair.b)
    expected = wrapped(**tiny_input(theirs)).logits
    torch.testing.assert_close(ours(**tiny_input(ours)).logits, expected, atol=1e-6, rtol=1e-5)


@given(st.integers(1, 5), st.integers(1, 5), st.integers(1, 5), st.integers(1, 5))
def test_product_equals_the_dense_one(a_out: int, a_in: int, b_out: int, b_in: int) -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(a_out, a_in, generator=generator), torch.randn(b_out, b_in, generator=generator)
    x = torch.randn(2, 3, a_in * b_in, generator=generator)
    torch.testing.assert_close(multiply(a, b, x), x @ torch.kron(a, b).T, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama", "qwen3"])
@pytest.mark.parametrize("size", [1, 3])
@torch.no_grad()
def test_dense_products_in_the_weights_give_the_same_output(family: str, size: int) -> None:
    model = make(family)
    backbone = detect(model)
    with inject(model, place(backbone, krona=size), backbone) as injection:
        disturb(model)
        hooked = model(**tiny_input(model)).logits
        with merged(model):
            assert not any(module._forward_hooks for module in model.modules())
            torch.testing.assert_close(model(**tiny_input(model)).logits, hooked, atol=1e-5, rtol=1e-5)
        pairs = dict(injection.injected.items())
    for block in backbone.blocks:
        for name, p in METHODS["krona"].projections(block).items():
            pair = pairs[f"{block.stack}_{block.index}_krona"].get_submodule(name)
            weight = model.get_submodule(p.path).weight
            weight = weight.T if family == "gpt2" else weight  # Conv1D holds (d_in, d_out)
            weight[p.start : p.start + p.d_out] += torch.kron(pair.a, pair.b)
    torch.testing.assert_close(model(**tiny_input(model)).logits, hooked, atol=1e-5, rtol=1e-5)


@given(st.integers(1, 200), st.integers(1, 200))
def test_shapes_fit_and_grow(d_out: int, d_in: int) -> None:
    shapes = factorisations(d_out, d_in)
    counts = [shape.n_params for shape in shapes]
    assert counts == sorted(set(counts))
    assert all((s.a[0] * s.b[0], s.a[1] * s.b[1]) == (d_out, d_in) for s in shapes)
    every = [
        (m * n + d_out * d_in // (m * n), min(m, n) * min(d_out // m, d_in // n))
        for m in range(1, d_out + 1)
        for n in range(1, d_in + 1)
        if d_out % m == d_in % n == 0
    ]
    assert set(counts) == {count for count, _ in every}
    assert all(s.rank == max(rank for count, rank in every if count == s.n_params) for s in shapes)


@pytest.mark.parametrize("d", [384, 768, 1024, 4096])
def test_the_smallest_is_as_large_as_lora_of_rank_one_and_of_high_rank(d: int) -> None:
    smallest = factorisations(d, d)[0]
    assert smallest.n_params == 2 * d
    assert smallest.rank >= d / 2
    if d == 768:
        assert (smallest.a, smallest.b) == ((24, 32), (32, 24))


def test_rank_is_the_products_own() -> None:
    torch.manual_seed(0)
    for shape in factorisations(24, 16):
        product = torch.kron(torch.randn(shape.a), torch.randn(shape.b))
        assert torch.linalg.matrix_rank(product) == shape.rank


def test_label_names_the_shapes_of_unequal_targets() -> None:
    assert METHODS["krona"].label(detect(make("llama")).blocks[0], 1) == "A 4x8, 4x4"


def test_initial_values_and_targets() -> None:
    model = make("llama")
    block = detect(model).blocks[0]
    method = KronA(targets=("ffn_in", "ffn_out"))
    attachment = method.attach(model, block, 1)
    assert sum(p.numel() for p in attachment.module.parameters()) == method.count(block, 1)
    assert method.changed(block, 1) == 3 * 32 * 64
    for pair in attachment.module.children():
        bound = pair.b.shape[1] ** -0.5  # Kaiming uniform with a = sqrt 5 is uniform within 1 / sqrt(b_in)
        assert not pair.a.any()
        assert 0.8 * bound < pair.b.abs().max() <= bound
    assert math.isclose(method.scaling, 1.0)
    with pytest.raises(MethodError, match=r"krona: unknown target 'q'.*known: ffn_in"):
        KronA(targets=("q",))
