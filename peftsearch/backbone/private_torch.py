"""Private parts of torch, used only in this module, each in a function that says why.

Torch returns a handle for each hook, but has no way to list hooks, to disable one temporarily without losing its place
among the others, or to pass hooks to another module. `tests/backbone/test_private_torch.py` checks each function and
names its users when it breaks.
"""

from __future__ import annotations

import copy
import logging
import sys
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from functools import cache
from typing import Any, TypeVar

import torch
from torch import nn

CPU_ATTENTION = "_scaled_dot_product_flash_attention_for_cpu"
"""Name of the operator under `torch.ops.aten` that computes attention on the CPU."""
CPU_ATTENTION_BACKWARD = f"{CPU_ATTENTION}_backward"
_log = logging.getLogger(__name__)
_T = TypeVar("_T")


def forget_compiled() -> None:
    """Forget what torch.compile has made in this process, if anything.

    Dynamo does not guard the hooks of modules, so that code which it compiled for one architecture would run, silently,
    for the next. Public, but for the test whether Dynamo is loaded at all, since loading it takes seconds.
    """
    if "torch._dynamo" in sys.modules:
        torch.compiler.reset()


def hook_owners(module: nn.Module) -> dict[int, Any]:
    """Owners of a module's forward hooks, which are bound methods, by the hook's key and in running order.

    Private: `nn.Module._forward_hooks`. The injection cannot keep this list itself, since folding must know about other
    hooks between its own.

    Returns:
        Owners by key; None for a hook that is not a bound method.
    """
    return {key: getattr(hook, "__self__", None) for key, hook in module._forward_hooks.items()}


def hide_forward_hooks(module: nn.Module, keys: Collection[int]) -> Callable[[], None]:
    """Disable forward hooks temporarily; the others still run in their order.

    Private: `nn.Module._forward_hooks` is replaced by another mapping. Removing the hooks and registering them again
    would put them after the others and invalidate their handles.

    Args:
        module: The hooked module.
        keys: Keys of the hooks, from `hook_owners`.

    Returns:
        A function that restores the module's own mapping, which the hooks' handles refer to.
    """
    before = module._forward_hooks
    module._forward_hooks = OrderedDict((key, hook) for key, hook in before.items() if key not in keys)

    def put_back() -> None:
        module._forward_hooks = before

    return put_back


def share_hooks(source: nn.Module, target: nn.Module) -> None:
    """Let a module run the forward hooks and forward pre-hooks of the module that it replaces.

    Private: `nn.Module._forward_hooks` and `_forward_pre_hooks`. Both modules hold the same mappings, so the hooks'
    handles remove them from both. Left out: hooks that take keyword arguments.
    """
    target._forward_hooks = source._forward_hooks
    target._forward_pre_hooks = source._forward_pre_hooks


def by_operator(namespace: str, formulas: Mapping[str, _T]) -> dict[Any, _T]:
    """Key FLOP formulas by operator instead of by name, as torch's `FlopCounterMode` takes them.

    Private: names of kernels under `torch.ops`. A kernel that this version does not have is logged once and left out;
    only its FLOPs are then missing.

    Args:
        namespace: `aten`, or the namespace of a library with its own operators.
        formulas: Formulas by the operator's name.
    """
    operators = getattr(torch.ops, namespace)
    found = {name: getattr(operators, name, None) for name in formulas}
    for name, operator in found.items():
        if operator is None:
            _warn_once(namespace, name)
    return {operator: formulas[name] for name, operator in found.items() if operator is not None}


@cache
def _warn_once(namespace: str, name: str) -> None:
    _log.warning("torch %s has no operator %s::%s: its FLOPs are not counted", torch.__version__, namespace, name)


def n_writes(tensor: torch.Tensor) -> int:
    """Number of writes to a tensor so far, which tells that it has changed without comparing its values.

    Private: `Tensor._version`. Torch has no public count.
    """
    return int(tensor._version)


def copy_with(module: nn.Module, parameters: Mapping[str, torch.Tensor | None]) -> nn.Module:
    """Shallow copy of a module that computes with other values in the place of its parameters.

    Private: `nn.Module._parameters`. `torch.func.functional_call` would run the module's hooks too.

    Args:
        module: Stays as it is.
        parameters: Values by the names of the module's own parameters.
    """
    other = copy.copy(module)
    other._parameters = dict(parameters)  # type: ignore[arg-type]  # plain tensors compute alike
    return other
