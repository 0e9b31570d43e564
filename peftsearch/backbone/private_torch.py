"""Private parts of torch: the one module that touches them, each behind a function that says why.

Torch gives out a handle for each hook and no way to list hooks, to keep one from running for a while without losing
its place among the others, or to hand hooks on to another module. `tests/backbone/test_private_torch.py` checks each
function and names its users when it breaks.
"""

from __future__ import annotations

import logging
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


def hook_owners(module: nn.Module) -> dict[int, Any]:
    """Objects whose bound methods are a module's forward hooks, by the hook's key, in the order in which hooks run.

    Private: `nn.Module._forward_hooks`. The injection cannot keep this list itself: folding has to know of hooks of
    others between its own.

    Returns:
        None as the owner of a hook that is no bound method.
    """
    return {key: getattr(hook, "__self__", None) for key, hook in module._forward_hooks.items()}


def hide_forward_hooks(module: nn.Module, keys: Collection[int]) -> Callable[[], None]:
    """Keep forward hooks from running for a while; the others run in their order.

    Private: `nn.Module._forward_hooks` is replaced by another mapping. Removing the hooks and registering them again
    would put them behind the others and void their handles.

    Args:
        module: The hooked module.
        keys: Of the hooks, as `hook_owners` gives them.

    Returns:
        A function that puts the module's own mapping back, in which the hooks' handles find them.
    """
    before = module._forward_hooks
    module._forward_hooks = OrderedDict((key, hook) for key, hook in before.items() if key not in keys)

    def put_back() -> None:
        module._forward_hooks = before

    return put_back


def share_hooks(source: nn.Module, target: nn.Module) -> None:
    """Let a module run the forward hooks of the module that it replaces, those before it and those after it.

    Private: `nn.Module._forward_hooks` and `_forward_pre_hooks`. Both modules hold the same mappings, so the hooks'
    handles remove them from both. Left out: hooks that take keyword arguments.
    """
    target._forward_hooks = source._forward_hooks
    target._forward_pre_hooks = source._forward_pre_hooks


def by_operator(namespace: str, formulas: Mapping[str, _T]) -> dict[Any, _T]:
    """Key FLOP formulas by operator instead of by name, as torch's `FlopCounterMode` takes them.

    Private: names of kernels under `torch.ops`. One that this version does not have is logged once and left out: its
    FLOPs are missing, and nothing else.

    Args:
        namespace: `aten`, or that of a library with operators of its own.
        formulas: By name of the operator.
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
