"""Private parts of transformers, used only in this module, each in a function that says why.

`tests/backbone/test_private_transformers.py` checks each function on a tiny model and names its users when it breaks.
"""

from __future__ import annotations

import inspect
from typing import Any

from torch import nn

# --- Configs, the code of attentions, and fresh weights ---


def commit_of(config: Any) -> str:
    """Hub commit that a config came from; empty when unknown, as always since transformers 5.23.

    Private: `config._commit_hash`, which earlier releases of transformers 5 set and later ones do not; nothing public
    gives the commit of a model that a user loaded. Without it `save` records no commit for such a model.
    """
    return str(getattr(config, "_commit_hash", None) or "")


def calls_attention_functions(attention: type[nn.Module]) -> bool:
    """Whether an attention class uses transformers' AttentionInterface, according to its code.

    Private: the global name `ALL_ATTENTION_FUNCTIONS` of the modelling files. The class flag
    `_supports_attention_backend` is less precise: it is missing on BART and T5, which use the interface, and it belongs
    to the model rather than to the attention. Without that name no model can take a prefix.
    """
    forward = getattr(inspect.unwrap(attention.forward), "__code__", None)
    return "ALL_ATTENTION_FUNCTIONS" in getattr(forward, "co_names", ())


def initialise(model: nn.Module, part: nn.Module) -> bool:
    """Initialise the parameters of one module, excluding its children, as the model's family does.

    Private: `PreTrainedModel._init_weights`; the public `initialize_weights` initialises whole models. Without it a new
    head starts from torch's defaults, which are larger than the family's `initializer_range`.

    Args:
        model: The model that the module belongs to.
        part: The module; a parameter with transformers' mark `_is_hf_initialized` keeps its values. Deep copies of
            parameters have no such mark.

    Returns:
        False, with nothing changed, where the model is not a transformers model.
    """
    draw = getattr(model, "_init_weights", None)
    if not callable(draw):
        return False
    draw(part)
    return True


# --- Attention functions ---
# An attention module reads the name of an attention function from its config and looks the function up in the table of
# the file that defines its `forward`. A prefix replaces that name on one config.


def attention_of(config: Any) -> str | None:
    """The attention implementation that a config names: `sdpa`, `eager`; None before a model was made from it.

    Private: `config._attn_implementation`; there is a public setter, `model.set_attn_implementation`, but no getter.
    Without it prefixes cannot be removed, and estimates leave out the memory of eager attention's weights.
    """
    implementation: str | None = getattr(config, "_attn_implementation", None)
    return implementation


def set_attention(config: Any, implementation: str | None) -> None:
    """Set the attention implementation of one config, but not of its sub-configs.

    The public `set_attn_implementation` sets all stacks and sub-models of a model, and cannot restore implementations
    that differ among them; the setter of `_attn_implementation` passes the name on to sub-configs. Only the attribute
    behind it belongs to one config.
    """
    config._attn_implementation_internal = implementation


def attention_function_of(module: nn.Module, implementation: str) -> Any:
    """The attention function that a module itself would call under an implementation.

    It is looked up in the file that defines the module's `forward`: a family may have its own table of functions there,
    and its eager attention is a function of that file. There is no public way to either.
    """
    scope = inspect.unwrap(type(module).forward).__globals__
    if implementation == "eager":
        return scope["eager_attention_forward"]
    return scope["ALL_ATTENTION_FUNCTIONS"][implementation]


def has_adapter(model: Any) -> bool:
    """Whether loading put an adapter of HF peft into a model, as it does where adapter_config.json is beside it."""
    return bool(getattr(model, "_hf_peft_config_loaded", False))


def forget_packed_conversions(model: Any) -> None:
    """Remove the conversions by which packed weights were read: they cannot be turned back when plain ones are saved.

    Private: `_weight_conversions`, and `reverse_op` of their operations. Seen in transformers 5.23.
    """
    conversions = getattr(model, "_weight_conversions", None)
    if conversions:
        kept = [each for each in conversions if _turns_back(each)]
        model._weight_conversions = kept or None


def _turns_back(conversion: Any) -> bool:
    try:
        conversion.reverse_transform()
    except (NotImplementedError, ValueError):
        return False
    return True
