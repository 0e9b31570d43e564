"""The vectors of a prefix and the attention that reads them; `peftsearch.methods.prefix` names the paper."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import torch
from torch import nn
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

from peftsearch.backbone.anatomy import Attention, Block
from peftsearch.backbone.private_transformers import attention_function_of, attention_of, set_attention
from peftsearch.errors import MethodError
from peftsearch.methods.layers.attachment import Attachment

INIT_STD = 0.02
"""Standard deviation of the normal that keys and values start from."""
ATTRIBUTE = "peftsearch_prefix"
DELEGATES = ("sdpa", "eager")
"""The attention implementations that a prefix can be put in front of."""


class Prefixed(Protocol):
    """The source of an attention's prefix."""

    def vectors(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values, `([batch,] kv_heads, l, head_dim)`."""


class PrefixVectors(nn.Module):
    """The trained keys and values of one attention."""

    def __init__(self, attention: Attention, length: int) -> None:
        super().__init__()
        shape = (attention.n_kv_heads, length, attention.head_dim)
        self.keys = nn.Parameter(torch.empty(shape).normal_(std=INIT_STD))
        self.values = nn.Parameter(torch.empty(shape).normal_(std=INIT_STD))
        self.cross: PrefixVectors | None = None
        """The prefix of the block's cross-attention, where there is one."""

    def vectors(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values, `(kv_heads, l, head_dim)`; a gated prefix has a leading batch axis."""
        return self.keys, self.values


def prepend(vectors: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
    """Put prefix vectors `([batch,] kv_heads, l, head_dim)` in front of states `(batch, kv_heads, seq, head_dim)`.

    Returns:
        `(batch, kv_heads, l + seq, head_dim)`, in the states' dtype.
    """
    front = vectors.to(states.dtype).expand(states.shape[0], -1, -1, -1)
    return torch.cat((front, states), dim=2)


def extend_mask(
    mask: torch.Tensor | None, length: int, query: torch.Tensor, key: torch.Tensor, causal: bool
) -> torch.Tensor | None:
    """Let every query see the prefix, and build a causal mask where causality was only a flag.

    Args:
        mask: `(batch | 1, heads | 1, q, k)`, boolean (True sees) or additive; None sees all, or the past if `causal`.
        length: Number l of prefix tokens.
        query: `(batch, heads, q, head_dim)`
        key: `(batch, kv_heads, k, head_dim)`, without the prefix.
        causal: Whether a missing mask means a causal one.

    Returns:
        `(..., q, l + k)`, or None where all is seen.
    """
    q, k = query.shape[2], key.shape[2]
    if mask is None:
        if not causal or q == 1:
            return None
        # The causal flag cannot be used: its mask is aligned to the top left and would hide the prefix and the past.
        mask = torch.ones(q, k, dtype=torch.bool, device=query.device).tril()[None, None]
    seen = True if mask.dtype == torch.bool else 0.0
    return functional.pad(mask, (length, 0), value=seen)


def _attend(
    implementation: str,
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Put the module's prefix in front of keys and values, then call the delegate.

    Args:
        implementation: The delegate's name.
        module: The attention module; without a prefix the delegate is called directly.
        query: `(batch, heads, q, head_dim)`
        key: `(batch, kv_heads, k, head_dim)`
        value: `(batch, kv_heads, k, head_dim)`
        attention_mask: See `extend_mask`.
        **kwargs: Further arguments from the model to the delegate.

    Returns:
        Output `(batch, q, heads, head_dim)`, and the attention weights where the delegate gives them.
    """
    inner = attention_function_of(module, implementation)
    prefixes: tuple[Prefixed, ...] = module.__dict__.get(ATTRIBUTE, ())
    for prefix in prefixes:
        keys, values = prefix.vectors()
        length = keys.shape[-2]
        causal = kwargs.get("is_causal")
        causal = getattr(module, "is_causal", True) if causal is None else causal
        # Eager attention has no causal flag: it always gets a mask where one is needed.
        causal = bool(causal) and implementation != "eager"
        attention_mask = extend_mask(attention_mask, length, query, key, causal)
        key, value = prepend(keys, key), prepend(values, value)
        if kwargs.get("position_bias") is not None:
            kwargs["position_bias"] = functional.pad(kwargs["position_bias"], (length, 0))
    output: tuple[torch.Tensor, torch.Tensor | None]
    output = inner(module, query, key, value, attention_mask, **kwargs)
    return output


for _name in DELEGATES:
    AttentionInterface.register(f"{ATTRIBUTE}_{_name}", partial(_attend, _name))
    AttentionMaskInterface.register(f"{ATTRIBUTE}_{_name}", ALL_MASK_ATTENTION_FUNCTIONS[_name])


def put_in_front(model: nn.Module, attention: Attention, vectors: Prefixed) -> list[Callable[[], object]]:
    """Put a prefix on an attention, in front of existing ones, and route the attention's config through `_attend`.

    Returns:
        Calls that remove it.

    Raises:
        MethodError: The model was loaded with an attention implementation other than `sdpa` or `eager`.
    """
    module = model.get_submodule(attention.path)
    config: Any = module.config
    configured = (attention_of(config) or "eager").removeprefix(f"{ATTRIBUTE}_")
    if configured not in DELEGATES:
        raise MethodError(
            f"prefix: the model uses attention {configured!r}, but prefix needs one of {', '.join(DELEGATES)}: "
            "load it with attn_implementation='sdpa'"
        )
    before = module.__dict__.get(ATTRIBUTE, ())
    undo: list[Callable[[], object]] = [
        partial(set_attention, config, attention_of(config)),
        partial(module.__dict__.__setitem__, ATTRIBUTE, before) if before else partial(_detach, module),
    ]
    # Bypasses nn.Module's registration, so that the parameters are registered once, in the attachment.
    module.__dict__[ATTRIBUTE] = (*before, vectors)
    set_attention(config, f"{ATTRIBUTE}_{configured}")
    return undo


def _detach(module: nn.Module) -> None:
    del module.__dict__[ATTRIBUTE]


def attach(model: nn.Module, block: Block, length: int) -> Attachment:
    """Put a prefix on a block's self-attention, and another on its cross-attention where there is one.

    Raises:
        MethodError: The model was loaded with an attention implementation other than `sdpa` or `eager`.
    """
    vectors = PrefixVectors(block.attention, length)
    undo = put_in_front(model, block.attention, vectors)
    if block.cross_attention is not None:
        # A submodule of the first prefix, so that parameter names do not depend on there being a cross-attention.
        vectors.cross = PrefixVectors(block.cross_attention, length)
        undo += put_in_front(model, block.cross_attention, vectors.cross)
    return Attachment(module=vectors, undo=undo)
