"""Private parts of transformers: the one module that touches them, each behind a function that says why.

`tests/backbone/test_private_transformers.py` checks each on a tiny model and names its users when it breaks.
"""

from __future__ import annotations

import inspect
from typing import Any

from torch import nn

# --- Configs, the code of attentions, and fresh weights ---


def commit_of(config: Any) -> str:
    """Commit of the hub that a config came from; empty when unknown, as always since transformers 5.23.

    Private: `config._commit_hash`, which earlier releases of transformers 5 set and later ones do not; nothing public
    tells the commit of a model that a user loaded. Without it `save` records no commit for such a model.
    """
    return str(getattr(config, "_commit_hash", None) or "")


def calls_attention_functions(attention: type[nn.Module]) -> bool:
    """Whether an attention's class goes through transformers' AttentionInterface, read from the code that runs.

    Private: the global name `ALL_ATTENTION_FUNCTIONS` of the modelling files. The class flag
    `_supports_attention_backend` says less: it is missing on BART and T5, which go through the interface, and it
    belongs to the model rather than to the attention. Without it no model takes a prefix.
    """
    forward = getattr(inspect.unwrap(attention.forward), "__code__", None)
    return "ALL_ATTENTION_FUNCTIONS" in getattr(forward, "co_names", ())


def initialise(model: nn.Module, part: nn.Module) -> bool:
    """Draw the parameters of one module, without its children, as the model's family does.

    Private: `PreTrainedModel._init_weights`; the public `initialize_weights` draws whole models. Without it a new head
    starts from torch's defaults, which are larger than the family's `initializer_range`.

    Args:
        model: The model that the module belongs to.
        part: The module; a parameter with transformers' mark `_is_hf_initialized` keeps its values. Deep copies of
            parameters have no such mark.

    Returns:
        False, with nothing drawn, where the model is not of transformers.
    """
    draw = getattr(model, "_init_weights", None)
    if not callable(draw):
        return False
    draw(part)
    return True


# --- Attention functions ---
# An attention module asks its config for the name of an attention function, and the table in the file where its
# `forward` is written for the function of that name. A prefix takes the place of that name on one config.


def attention_of(config: Any) -> str | None:
    """The attention implementation that a config names: `sdpa`, `eager`; None before a model was made of it.

    Private: `config._attn_implementation`; there is a public setter, `model.set_attn_implementation`, and no getter.
    Without it prefixes cannot be taken out again, and an estimate lacks the memory of eager attention's weights.
    """
    implementation: str | None = getattr(config, "_attn_implementation", None)
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
