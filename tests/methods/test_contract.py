"""What every method promises, on every backbone family; a new method or family joins by its table."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from peftsearch.backbone.anatomy import Backbone
from peftsearch.backbone.detect import detect
from peftsearch.engine.trainable import checkpointing
from peftsearch.errors import MethodError
from peftsearch.injection.inject import inject, param_groups
from peftsearch.injection.states import set_state, state
from peftsearch.methods import METHODS, get_method
from peftsearch.methods.abilities import count_placed
from peftsearch.methods.support import find_obstacle
from tests.methods import disturb, equipped, make, place, settle
from tests.tiny import FAMILIES, outline, tiny_input

REASONS = {
    "has no biases": {"modernbert", "llama", "mistral", "qwen3", "gemma", "phi3", "t5"},
    "does not use transformers' AttentionInterface": {"deberta", "deberta-v2", "mpnet", "bloom"},
    "is run 4 times": {"albert"},
    "is causal, and the gates average over whole texts": {
        "gpt2",
        "gpt_neox",
        "opt",
        "bloom",
        "llama",
        "mistral",
        "qwen2",
        "qwen3",
        "gemma",
        "phi",
        "phi3",
        "t5",
        "bart",
    },
    "is in a model of two stacks or without words": {"t5", "bart", "vit"},
}
"""Why a method may be unable to act, and the families that this is true of."""
OBSTACLES = {
    (name, family): found
    for family in FAMILIES
    for name in METHODS
    if (found := find_obstacle(name, equipped(outline(family)))) is not None
}
PAIRS = [
    (name, family)
    for name in sorted(METHODS)
    for family in sorted(FAMILIES)
    if (name, family) not in OBSTACLES
    # It differs from its twin by which matrix is shared: three families are enough.
    and (name != "lora_shared_b" or family in ("bert", "gpt2", "t5"))
]


@cache
def loaded(family: str) -> tuple[nn.Module, Backbone]:
    model = make(family)
    return model, equipped(detect(model))


@torch.no_grad()
def logits(model: nn.Module) -> torch.Tensor:
    result: torch.Tensor = model(**tiny_input(model)).logits
    return result


@pytest.mark.parametrize("name", METHODS)
def test_obstacles_are_the_known_ones(name: str) -> None:
    """A method is refused by no family, or by exactly those that its reason is true of."""
    found = {family: reason for (method, family), reason in OBSTACLES.items() if method == name}
    known = {text: families for text, families in REASONS.items() if any(text in reason for reason in found.values())}
    assert set(found) == set().union(*known.values())
    assert all(any(text in found[family] for text in known) for family in found)


def test_methods_that_are_known_to_be_refused() -> None:
    assert {family for name, family in OBSTACLES if name == "bitfit"} == REASONS["has no biases"]
    assert {f for name, f in OBSTACLES if name == "prefix"} == REASONS["does not use transformers' AttentionInterface"]
    assert not {name for name, _ in OBSTACLES} & {"lora", "adapter", "adapter_pfeiffer", "adapter_parallel"}


def test_table_names_are_the_methods_own() -> None:
    assert all(method.name == name for name, method in METHODS.items())
    with pytest.raises(MethodError, match="unknown method 'lorra'; did you mean 'lora'"):
        get_method("lorra")


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_count_is_the_number_of_real_parameters(data: st.DataObject) -> None:
    name, family = data.draw(st.sampled_from(PAIRS))
    method, (model, backbone) = METHODS[name], loaded(family)
    block = data.draw(st.sampled_from(backbone.blocks))
    size = data.draw(st.integers(1, method.max_size(block)))
    attachment = method.attach(model, block, size)
    try:
        assert sum(p.numel() for p in attachment.module.parameters()) == count_placed(method, block, size, True)
        assert all(p.requires_grad for p in attachment.module.parameters())
    finally:
        for undo in reversed(attachment.undo):
            undo()
    if size > 1:
        assert method.count(block, size) > method.count(block, size - 1) > 0


@pytest.mark.parametrize(("name", "family"), PAIRS)
def test_output_at_init_and_after_removal(name: str, family: str) -> None:
    model, backbone = loaded(family)
    before = logits(model)
    with inject(model, place(backbone, **{name: 3}), backbone):
        settle(model)
        at_init = logits(model)
        disturb(model)
        disturbed = logits(model)
    assert torch.equal(at_init, before) == METHODS[name].exact_at_init
    assert (disturbed - before).abs().max() > 1e-4
    assert torch.equal(logits(model), before)


@pytest.mark.parametrize(("name", "family"), PAIRS)
def test_training_changes_every_injected_parameter_and_no_other(name: str, family: str) -> None:
    model, backbone = loaded(family)
    inputs = tiny_input(model) | {"labels": torch.tensor([0, 1, 0])}
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with inject(model, place(backbone, **{name: 3}), backbone) as injection:
        settle(model)
        initial = {key: p.detach().clone() for key, p in model.named_parameters() if p.requires_grad}
        optimizer = torch.optim.AdamW(param_groups(model, 1e-2))
        model.train()
        torch.manual_seed(0)
        for _ in range(10):
            optimizer.zero_grad()
            model(**inputs).loss.backward()
            optimizer.step()
        model.eval()
        for key, parameter in model.named_parameters():
            assert (parameter.grad is not None) == (key in initial), key
            assert torch.equal(parameter, initial.get(key, before.get(key))) == (key not in initial), key
        assert len(initial) > len(list(injection.injected.parameters())) > 0
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[key], before[key]) for key in before)


@pytest.mark.parametrize("name", METHODS)
def test_facts_are_stated(name: str) -> None:
    method, block = METHODS[name], loaded("bert")[1].blocks[0]
    assert method.paper[:4].isdigit()
    assert method.places
    assert method.changes
    assert method.lr_scale > 0
    assert method.label(block, 1)
    assert method.max_size(block) == 1 or method.label(block, 1) != method.label(block, 2)


@pytest.mark.parametrize("name", METHODS)
def test_bfloat16_backbone_computes_in_its_own_dtype(name: str) -> None:
    model = make().to(torch.bfloat16)
    exact = make()
    exact.load_state_dict(model.state_dict())
    results, kept = [], {}
    for each in (model, exact):
        backbone = equipped(detect(each))
        inject(each, place(backbone, **{name: 2}), backbone)
        settle(each)
        disturb(each)
        set_state(each, kept.setdefault("state", state(each)))
        assert {p.dtype for p in each.get_submodule("peftsearch").parameters()} == {torch.float32}
        results.append(logits(each))
    assert results[0].dtype == torch.bfloat16
    torch.testing.assert_close(results[0].float(), results[1], atol=0.05, rtol=0.05)


def gradients(model: nn.Module) -> dict[str, torch.Tensor]:
    """Gradients of one backward in training mode, by parameter; the tiny models' dropout is off."""
    inputs = tiny_input(model)
    labels = torch.arange(len(next(iter(inputs.values())))) % 2
    model.zero_grad()
    torch.manual_seed(0)  # some methods draw in training
    model(**inputs, labels=labels).loss.backward()
    return {key: p.grad.clone() for key, p in model.named_parameters() if p.grad is not None}


@pytest.mark.filterwarnings("ignore:.gradient_checkpointing:FutureWarning")  # the name before transformers 5.20
@pytest.mark.parametrize("family", ["bert", "gpt2", "llama"])
@pytest.mark.parametrize("name", METHODS)
def test_gradient_checkpointing_changes_no_gradient(name: str, family: str) -> None:
    if (name, family) not in PAIRS:
        pytest.skip("cannot act there")
    model = make(family)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    for key in [key for key in vars(model.config) if "drop" in key or "pdrop" in key]:
        setattr(model.config, key, 0.0)
    backbone = equipped(detect(model))
    with inject(model, place(backbone, **{name: 3}), backbone):
        settle(model)
        disturb(model)
        for attention in (model.get_submodule(block.attention.path) for block in backbone.blocks):
            attention.attention_dropout = 0.0
        model.train()
        plain = gradients(model)
        with checkpointing(model, wanted=True):
            kept = gradients(model)
        assert plain.keys() == kept.keys()
        for key in plain:
            torch.testing.assert_close(kept[key], plain[key], atol=1e-5, rtol=1e-4, msg=key)


@pytest.mark.parametrize("family", FAMILIES)
def test_all_methods_together(family: str) -> None:
    model, backbone = loaded(family)
    names = [name for name in METHODS if (name, family) in PAIRS]
    before = {key: value.clone() for key, value in model.state_dict().items()}
    architecture = place(backbone, **dict.fromkeys(names, 2))
    with inject(model, architecture, backbone) as injection:
        settle(model)
        disturb(model, std=0.02)
        assert sum(p.numel() for p in injection.injected.parameters()) == architecture.n_params
        found = gradients(model)
        assert all(torch.isfinite(g).all() for g in found.values())
        assert {key for key, p in model.named_parameters() if p.requires_grad} == set(found)
        expected, values = logits(model), state(model)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    with inject(model, architecture, backbone, seed=7):
        set_state(model, values)
        assert torch.equal(logits(model), expected)


@pytest.mark.parametrize("name", METHODS)
def test_bfloat16_autocast_trains_in_float32(name: str) -> None:
    model, backbone = loaded("bert")
    with inject(model, place(backbone, **{name: 2}), backbone):
        settle(model)
        disturb(model)
        plain = logits(model)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = gradients(model)
            torch.testing.assert_close(logits(model).float(), plain, atol=0.1, rtol=0.1)
        assert {g.dtype for g in found.values()} == {torch.float32}
        assert all(torch.isfinite(g).all() for g in found.values())
