"""The private parts of torch that the package uses: what broke, and who uses it."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from peftsearch.backbone import private_torch as private


def broken(part: str, users: str) -> str:
    return f"torch {torch.__version__}: {part} changed; adapt private_torch.py, used by {users}"


class Times(nn.Module):
    """A hook module that multiplies outputs."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, module: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        return self.factor * output


def double(module: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
    return 2 * output


X = torch.ones(1)


def test_owners_of_hooks_come_in_the_order_in_which_the_hooks_run() -> None:
    module, first, second = nn.Identity(), Times(3), Times(5)
    module.register_forward_hook(first.forward)
    module.register_forward_hook(double)
    module.register_forward_hook(second.forward, prepend=True)
    told = broken("nn.Module._forward_hooks", "injection/merging.py, exporter/plain.py, exporter/peft_adapter.py")
    assert list(private.hook_owners(module).values()) == [second, first, None], told
    assert private.hook_owners(nn.Identity()) == {}, told


def test_hidden_hooks_do_not_run_and_come_back_in_their_places() -> None:
    module, hook = nn.Identity(), Times(3)
    told = broken("nn.Module._forward_hooks, which may be replaced,", "injection/merging.py: merged")
    handle = module.register_forward_hook(hook.forward)
    module.register_forward_hook(lambda module, args, output: output + 1)
    keys = list(private.hook_owners(module))
    assert module(X).item() == 4
    put_back = private.hide_forward_hooks(module, {keys[0]})
    assert module(X).item() == 2, told
    assert list(private.hook_owners(module)) == keys[1:], told
    put_back()
    assert module(X).item() == 4, told
    assert list(private.hook_owners(module)) == keys, told
    handle.remove()
    assert module(X).item() == 2, told


def test_hooks_of_a_replaced_module_run_in_the_one_that_replaces_it() -> None:
    old, new, hook = nn.Identity(), nn.Identity(), Times(3)
    told = broken("nn.Module._forward_hooks or _forward_pre_hooks", "backbone/quantised.py: dequantise")
    after = old.register_forward_hook(hook.forward)
    before = old.register_forward_pre_hook(lambda module, args: (args[0] + 1,))
    private.share_hooks(old, new)
    assert new(X).item() == 6, told
    after.remove()
    assert new(X).item() == 2, told
    before.remove()
    assert new(X).item() == 1, told


def test_the_cpus_attention_runs_the_kernels_whose_flops_are_counted() -> None:
    names = (private.CPU_ATTENTION, private.CPU_ATTENTION_BACKWARD)
    ones = {name: lambda *args, **kwargs: 1 for name in names}
    found = private.by_operator("aten", ones)
    users = "engine/measure.py: CPU_FORMULAS; until then the FLOPs of attention on the CPU are not counted"
    assert len(found) == 2, broken(f"one of the kernels {names}", users)
    query, key, value = (torch.randn(2, 4, 6, 8, requires_grad=True) for _ in range(3))
    counter = FlopCounterMode(display=False, custom_mapping=found)
    with counter:
        functional.scaled_dot_product_attention(query, key, value).sum().backward()
    assert counter.get_total_flops() == 2, broken(f"scaled_dot_product_attention, which ran {names},", users)


def test_a_kernel_that_is_gone_costs_its_flops_alone(caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        found = private.by_operator("aten", {"mm": 1, "no_such_kernel": 2})
        assert found == {torch.ops.aten.mm: 1}
    told = [record.getMessage() for record in caplog.records]
    assert told == [f"torch {torch.__version__} has no operator aten::no_such_kernel: its FLOPs are not counted"]


def test_writes_to_a_tensor_are_counted() -> None:
    tensor = torch.zeros(2)
    before = private.n_writes(tensor)
    tensor.add_(1)
    told = broken("Tensor._version", "methods/layers/{diffpruning,probing}.py")
    assert private.n_writes(tensor) == before + 1, told
    assert private.n_writes(tensor) == before + 1, told


def test_a_copy_computes_with_other_values() -> None:
    norm = nn.LayerNorm(2)
    other = private.copy_with(norm, {"weight": torch.full((2,), 3.0), "bias": None})
    told = broken("nn.Module._parameters", "methods/layers/layernorm.py")
    torch.testing.assert_close(other(torch.tensor([0.0, 2.0])), torch.tensor([-3.0, 3.0]), atol=1e-3, rtol=0, msg=told)
    torch.testing.assert_close(norm(torch.tensor([0.0, 2.0])), torch.tensor([-1.0, 1.0]), atol=1e-3, rtol=0)
