"""Injection and removal: exactness, composition, errors, saved states."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from peftsearch.backbone.detect import detect
from peftsearch.design.architecture import Architecture, Placement
from peftsearch.errors import MethodError
from peftsearch.injection.inject import inject, param_groups, remove
from peftsearch.injection.states import load_state, save_state, set_state, state
from peftsearch.methods import METHODS
from peftsearch.methods.abilities import count_placed, is_placed
from peftsearch.methods.lora import LoRA
from tests.methods import available, disturb, make, place
from tests.tiny import FAMILIES, tiny_input

FOUR = {"prefix": 2, "adapter": 2, "lora": 2, "bitfit": 3}


def losses(model: Any) -> dict[str, torch.Tensor]:
    return tiny_input(model) | {"labels": torch.tensor([0, 1, 0])}


def leftovers(model: nn.Module) -> list[str]:
    """Whatever still speaks of an injection: attributes, hooks, attention implementations."""
    found = []
    for name, module in model.named_modules():
        found += [f"{name}.{key}" for key in module.__dict__ if "peftsearch" in key]
        found += [f"{name} hook" for _ in module._forward_hooks] + [
            f"{name}" for key in module._modules if "peft" in key
        ]
        config = getattr(module, "config", None)
        if config is not None and "peftsearch" in str(config._attn_implementation):
            found.append(f"{name}.config")
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_four_methods_together_train_and_leave_no_trace(family: str) -> None:
    model = make(family)
    backbone = detect(model)
    flags = [p.requires_grad for p in model.parameters()]
    before, attention = copy.deepcopy(model.state_dict()), model.config._attn_implementation
    with torch.no_grad():
        logits = model(**tiny_input(model)).logits
    architecture = place(backbone, **available(backbone, **FOUR))
    with inject(model, architecture, backbone) as injection:
        assert sum(p.numel() for p in injection.injected.parameters()) == architecture.n_params
        optimizer = torch.optim.AdamW(param_groups(model, 1e-2))
        for _ in range(3):
            optimizer.zero_grad()
            model(**losses(model)).loss.backward()
            optimizer.step()
        trained = state(model)
        assert any(not torch.equal(trained[name], before[name]) for name in trained if name in before), "head"
        assert leftovers(model)
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert [p.requires_grad for p in model.parameters()] == flags
    assert all(p.grad is None for p in model.parameters())
    assert leftovers(model) == []
    assert model.config._attn_implementation == attention
    with torch.no_grad():
        assert torch.equal(model(**tiny_input(model)).logits, logits)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_any_architecture_has_its_stated_count_and_is_removed(data: st.DataObject) -> None:
    model = make(data.draw(st.sampled_from(["bert", "gpt2", "llama"])))
    backbone = detect(model)
    placements = []
    for block in backbone.blocks:
        first = backbone.blocks[0]
        usable = [
            n for n, method in METHODS.items() if method.obstacle(block) is None and is_placed(method, block, first)
        ]
        for name in data.draw(st.lists(st.sampled_from(usable), unique=True)):
            size = data.draw(st.integers(1, METHODS[name].max_size(block)))
            earlier = [p for p in placements if p.method == name]
            if earlier and getattr(METHODS[name], "per_group", False):
                size = earlier[0].size  # the blocks of a group share a matrix of one rank
            count = count_placed(METHODS[name], block, size, not earlier)
            placements.append(Placement(stack=block.stack, block=block.index, method=name, size=size, n_params=count))
    architecture = Architecture(placements=tuple(data.draw(st.permutations(placements))))
    with inject(model, architecture, backbone):
        head = sum(p.numel() for path in backbone.head for p in model.get_submodule(path).parameters())
        assert sum(p.numel() for p in model.parameters() if p.requires_grad) - head == architecture.n_params
    assert leftovers(model) == []


def test_order_of_the_architecture_does_not_matter() -> None:
    first, second = make(), make()
    architecture = place(detect(first), **FOUR)
    inject(first, architecture)
    inject(second, Architecture(placements=architecture.placements[::-1]))
    for model in (first, second):
        disturb(model)
    with torch.no_grad():
        assert torch.equal(first(**tiny_input(first)).logits, second(**tiny_input(second)).logits)


def test_seed_decides_and_the_global_generator_is_untouched() -> None:
    states = []
    for seed in (0, 0, 1):
        model = make()
        before = torch.get_rng_state()
        inject(model, place(detect(model), **FOUR), seed=seed)
        assert torch.equal(torch.get_rng_state(), before)
        states.append(state(model)["peftsearch.encoder_0_prefix.keys"])
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama"])
@pytest.mark.parametrize("use_reentrant", [False, True])
def test_gradient_checkpointing_gives_the_same_gradients(family: str, use_reentrant: bool) -> None:
    model = make(family)
    backbone = detect(model)
    inject(model, place(backbone, **available(backbone, **FOUR)), backbone)
    disturb(model)
    gradients = []
    model.train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    for checkpointing in (False, True):
        if checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": use_reentrant})
            model.enable_input_require_grads()
        model.zero_grad(set_to_none=True)
        model(**losses(model)).loss.backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.requires_grad})
    for name, gradient in gradients[0].items():
        assert gradient is not None, name
        torch.testing.assert_close(gradients[1][name], gradient, atol=1e-7, rtol=1e-4)


def test_deep_copy_is_independent() -> None:
    model = make()
    inject(model, place(detect(model), **FOUR))
    disturb(model)
    with torch.no_grad():
        expected = model(**tiny_input(model)).logits
        clone = copy.deepcopy(model)
        disturb(clone)
        assert not torch.equal(clone(**tiny_input(model)).logits, expected)
        remove(clone)
        assert leftovers(clone) == []
        assert torch.equal(model(**tiny_input(model)).logits, expected)


def test_state_round_trip_in_a_fresh_model(tmp_path: Path) -> None:
    source, target = make(), make()
    architecture = place(detect(source), **FOUR)
    inject(source, architecture)
    disturb(source)
    with torch.no_grad():
        source.classifier.weight += 1
    save_state(source, tmp_path / "trained.safetensors")
    inject(target, architecture, seed=5)
    load_state(target, tmp_path / "trained.safetensors")
    with torch.no_grad():
        assert torch.equal(source(**tiny_input(source)).logits, target(**tiny_input(target)).logits)
    remove(target)
    assert torch.equal(target.classifier.weight, make().classifier.weight)


def test_state_is_a_copy_that_can_be_put_back() -> None:
    model = make()
    inject(model, place(detect(model), **FOUR))
    kept = state(model)
    assert not any(value.requires_grad for value in kept.values())
    disturb(model)
    assert not torch.equal(state(model)["peftsearch.encoder_0_lora.query.a"], kept["peftsearch.encoder_0_lora.query.a"])
    set_state(model, kept)
    assert all(torch.equal(value, kept[name]) for name, value in state(model).items())


def test_states_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    model = make()
    inject(model, place(detect(model), lora=2))
    kept = state(model)
    name = "peftsearch.encoder_0_lora.query.a"
    with pytest.raises(MethodError, match=rf"{name} is missing"):
        set_state(model, {key: value for key, value in kept.items() if key != name})
    with pytest.raises(MethodError, match=r"extra is not in the model"):
        set_state(model, kept | {"extra": torch.zeros(1)})
    with pytest.raises(MethodError, match=rf"{name} has shape \(3, \d+\), the model needs \(2, \d+\)"):
        set_state(model, kept | {name: torch.zeros(3, kept[name].shape[1])})
    pickled, foreign = tmp_path / "state.bin", tmp_path / "foreign.safetensors"
    pickled.write_bytes(pickle.dumps({"weight": [1.0]}))
    save_file(kept, foreign)
    for path, message in (
        (pickled, "not a readable safetensors"),
        (tmp_path / "no", "not a readable"),
        (foreign, "format is None"),
    ):
        with pytest.raises(MethodError, match=message):
            load_state(model, path)
    assert all(torch.equal(value, kept[key]) for key, value in state(model).items())


def test_param_groups_scale_the_rate_by_method() -> None:
    model = make()
    inject(model, place(detect(model), prefix=1, lora=1))
    groups = {group["name"]: group for group in param_groups(model, 0.5)}
    assert list(groups) == ["lora", "prefix", "head"]
    assert groups["prefix"]["lr"] == 0.5 * METHODS["prefix"].lr_scale
    assert groups["head"]["lr"] == 0.5
    assert all(group["weight_decay"] == 0 for group in groups.values())
    grouped = {id(p) for group in groups.values() for p in group["params"]}
    assert grouped == {id(p) for p in model.parameters() if p.requires_grad}


def test_head_alone_is_an_architecture() -> None:
    model = make()
    with inject(model, Architecture(placements=())):
        assert [group["name"] for group in param_groups(model, 1.0)] == ["head"]
    assert leftovers(model) == []


def test_a_second_injection_and_a_missing_one_are_refused() -> None:
    model = make()
    architecture = place(detect(model), lora=1)
    injection = inject(model, architecture)
    with pytest.raises(MethodError, match="already carries an architecture"):
        inject(model, architecture)
    injection.remove()
    injection.remove()
    for call in (remove, state, lambda m: param_groups(m, 1.0)):
        with pytest.raises(MethodError, match="carries no architecture"):
            call(model)


BLOCK_0 = Placement(stack="encoder", block=0, method="lora", size=1, n_params=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "lorra"}, "unknown method 'lorra'; did you mean 'lora'"),
        ({"block": 99}, r"encoder block 99, lora: no such block \(the backbone has encoder 0 to 3\)"),
        ({"stack": "decoder"}, "decoder block 0, lora: no such block"),
        ({"size": 0}, "rank 0 is outside 1 to"),
        ({"size": 10**6}, "rank 1000000 is outside 1 to"),
        ({}, r"r=1 has \d+ parameters, the architecture says 1"),
    ],
)
def test_placements_that_do_not_fit_touch_nothing(change: dict[str, Any], message: str) -> None:
    model = make()
    before = [p.requires_grad for p in model.parameters()]
    good = place(detect(model), prefix=1).placements
    with pytest.raises(MethodError, match=message):
        inject(model, Architecture(placements=(*good, dataclasses.replace(BLOCK_0, **change))))
    assert leftovers(model) == []
    assert [p.requires_grad for p in model.parameters()] == before


def test_the_same_placement_twice_is_refused() -> None:
    model = make()
    placements = place(detect(model), lora=1).placements
    with pytest.raises(MethodError, match="encoder block 0, lora: placed twice"):
        inject(model, Architecture(placements=(*placements, placements[0])))


def test_a_failure_in_the_middle_is_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make()
    before = copy.deepcopy(model.state_dict())
    attach = LoRA.attach

    def fail(self: LoRA, model: nn.Module, block: Any, size: int) -> Any:
        if block.index == 1:
            raise RuntimeError("no memory left")
        return attach(self, model, block, size)

    monkeypatch.setattr(LoRA, "attach", fail)
    with pytest.raises(RuntimeError, match="no memory left"):
        inject(model, place(detect(model), **FOUR))
    assert leftovers(model) == []
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(p.requires_grad for p in model.parameters())


def test_a_copy_of_data_parallel_is_refused():
    """The copies are what `torch.nn.parallel.replicate` makes of a module on every GPU."""
    model = FAMILIES["bert"]()
    batch = tiny_input(model)
    with inject(model, place(detect(model), lora=2)):
        model(**batch)
        with pytest.raises(MethodError, match="accelerate launch"):
            model._replicate_for_data_parallel()(**batch)
    assert not model._forward_pre_hooks


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # Dynamo's own
def test_compiled_code_of_one_architecture_is_not_run_for_the_next():
    """Dynamo guards no hooks; after as many designs as it recompiles for, it ran those of an earlier one."""
    inputs = tiny_input(make("bert"))
    for i, name in enumerate(["lora", "adapter", "bitfit", "ia3"] * 2 + ["lora", "adapter"]):
        model = make("bert")
        inject(model, place(detect(model), **{name: 2}), seed=i)
        disturb(model, 0.2)
        model.eval()
        with torch.no_grad():
            eager, compiled = model(**inputs).logits, torch.compile(model, backend="eager")(**inputs).logits
        torch.testing.assert_close(compiled, eager)
