"""The private parts of transformers that this project reads or writes: each in one function that says why."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

# ---------------------------------------------------------------------------------------------------- attention
# An attention module asks its config for the name of an attention function, and the table in the file where its
# `forward` is written for the function of that name. A prefix takes the place of that name on one config.


def attention_of(config: Any) -> str | None:
    """The attention implementation that a config names: `sdpa`, `eager`; None before a model was made of it.

    `_attn_implementation` is private by its name, and the only attribute that tells it.
    """
    implementation: str | None = config._attn_implementation
    return implementation


def set_attention(config: Any, implementation: str | None) -> None:
    """Name the attention implementation of one config, and of none of its sub-configs.

    The public `set_attn_implementation` sets the stacks and sub-models of a model alike, and cannot give back
    implementations that differ among them; the setter of `_attn_implementation` passes the name on to sub-configs. The
    attribute behind it alone belongs to one config.
    """
    config._attn_implementation_internal = implementation


def attention_function_of(module: nn.Module, implementation: str) -> Any:
    """The attention function that a module would call itself under an implementation.

    It is looked up in the file where the module's `forward` is written: a family may have a table of functions of its
    own there, and its eager attention is a function of that file. Nothing public leads to either.
    """
    scope = inspect.unwrap(type(module).forward).__globals__
    if implementation == "eager":
        return scope["eager_attention_forward"]
    return scope["ALL_ATTENTION_FUNCTIONS"][implementation]
