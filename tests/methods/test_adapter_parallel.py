"""The parallel adapter against its formula, on every family, and without a trace of earlier forwards."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from peftsearch.backbone.detect import detect
from peftsearch.injection.inject import inject
from peftsearch.methods import METHODS
from peftsearch.methods.layers.adapter_parallel import ParallelBottleneck
from tests.methods import disturb, make, place
from tests.tiny import FAMILIES, tiny_input


def bottlenecks(model: nn.Module) -> list[ParallelBottleneck]:
    return [m for m in model.modules() if isinstance(m, ParallelBottleneck)]


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_adds_the_papers_formula_of_the_networks_input(family: str) -> None:
    """An oracle from outside: what goes into the FFN and what comes out, seen by hooks of the test's own."""
    model = make(family)
    blocks = detect(model).blocks
    position = min(1, len(blocks) - 1)
    block = blocks[position]
    first, last = model.get_submodule(block.ffn.inputs[0].path), model.get_submodule(block.ffn.output.path)
    seen: dict[str, torch.Tensor] = {}
    first.register_forward_pre_hook(lambda module, args: seen.update(x=args[0]))
    last.register_forward_hook(lambda module, args, output: seen.update(plain=output))  # runs before the adapter's
    inject(model, place(detect(model), adapter_parallel=3))
    last.register_forward_hook(lambda module, args, output: seen.update(adapted=output))
    disturb(model)
    down, up = nn.Linear(32, 3), nn.Linear(3, 32)
    own = bottlenecks(model)[position]
    down.load_state_dict({"weight": own.w_down, "bias": own.b_down})
    up.load_state_dict({"weight": own.w_up, "bias": own.b_up})
    model(**tiny_input(model))
    expected = seen["plain"] + 4 * up(nn.functional.gelu(down(seen["x"])))
    torch.testing.assert_close(seen["adapted"], expected)


def test_a_serial_adapter_does_not_see_it() -> None:
    model = make()
    block = detect(model).blocks[0]
    inject(model, place(detect(model), adapter_parallel=3, adapter_pfeiffer=3))
    hooks = list(model.get_submodule(block.ffn.output.path)._forward_hooks.values())
    assert [type(hook.__self__).__name__ for hook in hooks] == ["Bottleneck", "ParallelBottleneck"]


def test_counts_and_initial_values() -> None:
    block = detect(make()).blocks[0]
    assert METHODS["adapter_parallel"].count(block, 5) == 2 * 32 * 5 + 32 + 5
    torch.manual_seed(0)
    own = ParallelBottleneck(200, 50, 4.0)
    bound = 200**-0.5  # Kaiming uniform with a = sqrt 5 is uniform within 1 / sqrt(d_in)
    assert 0.99 * bound < own.w_down.abs().max() <= bound
    assert not any(p.any() for name, p in own.named_parameters() if name != "w_down")


def gradients(model: nn.Module) -> dict[str, torch.Tensor]:
    """Gradients of one backward, by parameter."""
    model.zero_grad()
    inputs = tiny_input(model) | {"labels": torch.arange(3) % 2}
    model(**inputs).loss.backward()
    assert all(b.tap.seen is None for b in bottlenecks(model)), "an input outlives its forward"
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("family", ["bert", "gpt2", "llama"])
def test_gradient_checkpointing_gives_the_same_gradients(family: str, reentrant: bool) -> None:
    model = make(family)
    inject(model, place(detect(model), adapter_parallel=3))
    disturb(model)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    model.train()
    plain = gradients(model)
    model.enable_input_require_grads()
    model.activation_checkpointing_enable({"use_reentrant": reentrant})
    for _ in range(2):
        again = gradients(model)
        assert again.keys() == plain.keys()
        for name, gradient in plain.items():
            torch.testing.assert_close(again[name], gradient, msg=name)


def test_a_network_that_is_computed_anew_alone_sees_its_own_input() -> None:
    """Two inputs before either backward: recomputing the first must not see what the second left behind."""
    first, last = nn.Linear(8, 16), nn.Linear(16, 8)
    own = ParallelBottleneck(8, 2, 4.0)
    nn.init.normal_(own.w_up)
    first.register_forward_hook(own.tap.see)
    last.register_forward_hook(own.forward)

    def network(x: torch.Tensor) -> torch.Tensor:
        return last(first(x).relu())

    inputs = [torch.randn(3, 8, requires_grad=True) for _ in range(2)]
    plain = torch.autograd.grad(sum(network(x).square().sum() for x in inputs), own.w_down)
    outputs = [checkpoint(network, x, use_reentrant=False) for x in inputs]
    torch.testing.assert_close(torch.autograd.grad(sum(y.square().sum() for y in outputs), own.w_down), plain)


def test_an_error_in_the_network_leaves_nothing_after_removal() -> None:
    model = make()
    injection = inject(model, place(detect(model), adapter_parallel=3))
    own = bottlenecks(model)[0]

    def fail(*args: object) -> None:
        raise RuntimeError("out of memory")

    handle = model.get_submodule(detect(model).blocks[0].ffn.output.path).register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        model(**tiny_input(model))
    assert own.tap.seen is not None
    handle.remove()
    injection.remove()
    assert own.tap.seen is None


@torch.no_grad()
def test_a_deep_copy_has_hooks_of_its_own() -> None:
    model = make()
    inject(model, place(detect(model), adapter_parallel=3))
    disturb(model)
    before = model(**tiny_input(model)).logits
    other = copy.deepcopy(model)
    disturb(other, std=1.0)
    assert torch.equal(model(**tiny_input(model)).logits, before)
    assert not torch.equal(other(**tiny_input(model)).logits, before)
