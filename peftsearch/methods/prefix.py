"""Prefix tuning (arXiv 2101.00190).

Sec. 4.2: l trained keys and values stand in front of the attention's own, in every tuned block; a decoder that reads
an encoder gets them in its cross-attention too. They are put there by the attention function itself, registered with
transformers' AttentionInterface, which then hands on to the attention that was configured (`sdpa` or `eager`). Every
query sees the whole prefix; prefix keys carry no position (no rotary embedding, and a relative position bias of zero);
the key-value cache never holds them, so generation works with and without a cache. The size is the length l, from 1 to
200; 2 l d_kv parameters an attention. Keys and values start as normals with standard deviation 0.02, so the output does
change at init. It does not merge.

Left out: the MLP reparametrisation of sec. 4.3.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import nn
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

from peftsearch.backbone.anatomy import Attention, Block
from peftsearch.errors import MethodError
from peftsearch.methods.method import Attachment

INIT_STD = 0.02
MAX_LENGTH = 200
ATTRIBUTE = "peftsearch_prefix"
DELEGATES = ("sdpa", "eager")
"""The attention implementations that a prefix can be put in front of."""


class Prefixed(Protocol):
    """What an attention's prefix comes from."""

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
        """Keys and values, `(kv_heads, l, head_dim)`, or with the batch in front of it."""
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
    """Let every query see the prefix, and hold causality where the mask left it to a flag.

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
        # The flag itself will not do: it is aligned to the top left, and would hide prefix and past alike.
        mask = torch.ones(q, k, dtype=torch.bool, device=query.device).tril()[None, None]
    seen = True if mask.dtype == torch.bool else 0.0
    return functional.pad(mask, (length, 0), value=seen)


def _delegate(attention: type[nn.Module], implementation: str) -> Any:
    """The attention function that a module's class would call itself, from the file where its `forward` is written."""
    scope = inspect.unwrap(attention.forward).__globals__
    if implementation == "eager":
        return scope["eager_attention_forward"]
    return scope["ALL_ATTENTION_FUNCTIONS"][implementation]


def _attend(
    implementation: str,
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The attention function: the module's prefix goes in front, then the delegate computes.

    Args:
        implementation: The delegate's name.
        module: The attention module; without a prefix it passes straight through.
        query: `(batch, heads, q, head_dim)`
        key: `(batch, kv_heads, k, head_dim)`
        value: `(batch, kv_heads, k, head_dim)`
        attention_mask: See `extend_mask`.
        **kwargs: What the model hands to the delegate.

    Returns:
        Output `(batch, q, heads, head_dim)`, and the attention weights where the delegate gives them.
    """
    inner = _delegate(type(module), implementation)
    prefixes: tuple[Prefixed, ...] = module.__dict__.get(ATTRIBUTE, ())
    for prefix in prefixes:
        keys, values = prefix.vectors()
        length = keys.shape[-2]
        causal = kwargs.get("is_causal")
        causal = getattr(module, "is_causal", True) if causal is None else causal
        # Eager attention knows no causal flag: it always gets a mask where one is needed.
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
    """Hang a prefix on an attention, in front of those it has, and route its config through `_attend`.

    Returns:
        What takes it out again.

    Raises:
        MethodError: The model was loaded with an attention implementation other than `sdpa` or `eager`.
    """
    module = model.get_submodule(attention.path)
    config: Any = module.config
    configured = (config._attn_implementation_internal or "eager").removeprefix(f"{ATTRIBUTE}_")
    if configured not in DELEGATES:
        raise MethodError(
            f"prefix: the model runs attention {configured!r}, prefix needs one of {', '.join(DELEGATES)}: "
            "load it with attn_implementation='sdpa'"
        )
    before = module.__dict__.get(ATTRIBUTE, ())
    undo: list[Callable[[], object]] = [
        partial(setattr, config, "_attn_implementation_internal", config._attn_implementation_internal),
        partial(module.__dict__.__setitem__, ATTRIBUTE, before) if before else partial(_detach, module),
    ]
    # Past nn.Module's own bookkeeping, so that the parameters are registered once, in the attachment.
    module.__dict__[ATTRIBUTE] = (*before, vectors)
    config._attn_implementation_internal = f"{ATTRIBUTE}_{configured}"
    return undo


def _detach(module: nn.Module) -> None:
    del module.__dict__[ATTRIBUTE]


@dataclass(frozen=True, kw_only=True, slots=True)
class Prefix:
    """Trained keys and values in front of a block's own, in its self-attention and its cross-attention."""

    name: str = "prefix"
    paper: str = "2101.00190, sec. 4.2"
    places: str = "keys and values of the attention"
    lr_scale: float = 10.0
    knob: str = "length"
    merges: bool = False
    changes: str = "none (added)"
    exact_at_init: bool = False

    def obstacle(self, block: Block) -> str | None:
        """Attentions that do not go through transformers' AttentionInterface cannot take a prefix."""
        path = next((attention.path for attention in block.attentions if not attention.interface), None)
        if path is None:
            return None
        return f"{path} does not use transformers' AttentionInterface; use lora or adapter there"

    def max_size(self, block: Block) -> int:
        """200 tokens: the paper sees no gain beyond (2101.00190, sec. 7.1)."""
        return MAX_LENGTH

    def count(self, block: Block, size: int) -> int:
        """2 l d_kv an attention."""
        return 2 * size * sum(attention.d_kv for attention in block.attentions)

    def changed(self, block: Block, size: int) -> int:
        """What it adds; the backbone stays as it is."""
        return self.count(block, size)

    def label(self, block: Block, size: int) -> str:
        """The length: `l=8`."""
        return f"l={size}"

    def attach(self, model: nn.Module, block: Block, size: int) -> Attachment:
        """Hang a prefix of length `size` on the block's attention and route its config through `_attend`.

        Raises:
            MethodError: The model was loaded with an attention implementation other than `sdpa` or `eager`.
        """
        vectors = PrefixVectors(block.attention, size)
        undo = put_in_front(model, block.attention, vectors)
        if block.cross_attention is not None:
            # A part of the first, so that a block without it keeps its parameters' names.
            vectors.cross = PrefixVectors(block.cross_attention, size)
            undo += put_in_front(model, block.cross_attention, vectors.cross)
        return Attachment(module=vectors, undo=undo)
