"""Variants of methods on other maps, by name, and in the YAML of a space."""

from __future__ import annotations

import pytest
import torch
import yaml

from peftsearch.backbone.detect import detect
from peftsearch.design.space import SearchSpace
from peftsearch.errors import ConfigError, MethodError
from peftsearch.injection.inject import inject
from peftsearch.injection.merging import merged
from peftsearch.methods import METHODS, get_method, variant_name
from tests.methods import disturb, make, place
from tests.tiny import tiny_input

VARIANTS = ("lora:ffn", "lora:attention", "lora_shared_a:all", "ia3:all", "ia3:query,ffn_out", "krona:ffn")


def test_a_name_says_what_a_variant_is() -> None:
    for name, method in METHODS.items():
        if hasattr(method, "targets"):
            assert variant_name(name, method.targets) == name
            assert variant_name(name, ("ffn_out", "ffn_in")) == f"{name}:ffn"
    assert get_method("lora:query,ffn_out").targets == ("query", "ffn_out")  # type: ignore[attr-defined]
    assert get_method("lora:query,ffn_out").name == "lora:query,ffn_out"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("lora:qery", "unknown target 'qery'; did you mean 'query'"),
        ("lora:", "unknown target ''"),
        ("lora:query,query", "named twice"),
        ("lora:value,query", "write it as lora,"),
        ("lora:ffn_in,ffn_out", "write it as lora:ffn,"),
        ("adapter:ffn", "adapter has no targets"),
        ("lorra:ffn", "did you mean 'lora'"),
    ],
)
def test_refused(name: str, message: str) -> None:
    with pytest.raises(MethodError, match=message):
        get_method(name)


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama", "t5"])
@pytest.mark.parametrize("name", VARIANTS)
def test_is_exact_at_init_and_merges_into_the_weights(name: str, family: str) -> None:
    model = make(family)
    backbone = detect(model)
    with torch.no_grad():
        before = model(**tiny_input(model)).logits
        with inject(model, place(backbone, **{name: 2}), backbone):
            assert torch.equal(model(**tiny_input(model)).logits, before)
            disturb(model)
            changed = model(**tiny_input(model)).logits
            assert (changed - before).abs().max() > 1e-4
            with merged(model):
                torch.testing.assert_close(model(**tiny_input(model)).logits, changed, atol=1e-4, rtol=1e-4)
        assert torch.equal(model(**tiny_input(model)).logits, before)


def space(text: str) -> SearchSpace:
    data = yaml.safe_load(text)
    return SearchSpace.from_dict("own", {"groups": 1, "allocations": ["uniform"], **data})


def test_a_space_names_variants() -> None:
    own = space("""
variants:
  on_ffn: {method: lora, targets: [ffn_out, ffn_in]}
  usual: {method: lora, targets: [value, query]}
methods: [on_ffn, usual, ia3]
""")
    assert own.methods == ("lora:ffn", "lora", "ia3")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{variants: {a: {method: lora, targets: [qery]}}, methods: [a]}", "'targets' must be one of"),
        ("{variants: {a: {method: adapter, targets: [query]}}, methods: [a]}", "adapter has no targets"),
        ("{variants: {a: {method: lora, target: [query]}}, methods: [a]}", "did you mean 'targets'"),
        ("{variants: {a: [lora]}, methods: [a]}", "write it as NAME"),
        ("{variants: {lora: {method: lora, targets: [query]}}, methods: [lora]}", "is the name of a method"),
        ("{variants: {a: {method: lora, targets: [query]}}, methods: [ia3]}", "which 'methods' does not name"),
        ("{variants: {a: {method: lora, targets: [query, value]}}, methods: [a, lora]}", "holds a method twice"),
    ],
)
def test_faults_of_variants(text: str, message: str) -> None:
    with pytest.raises((ConfigError, MethodError), match=message):
        space(text)
