"""Private parts of bitsandbytes, used only in this module, each in a function that says why.

The classes `Linear4bit` and `Linear8bitLt` are public; their states, flags and operators are not. None is looked up
before there is a packed map. `tests/backbone/test_private_bitsandbytes.py` checks each function on a tiny model and
names its users when it breaks.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from math import prod
from typing import Any

from torch import Tensor

from peftsearch.backbone.private_torch import by_operator

LIBRARY_LOG = "bitsandbytes"
"""Logger of the advice on optional kernels that bitsandbytes prints when imported."""
CASTS_LOG = "bitsandbytes.autograd._functions"
"""Logger of warnings about the casts in LLM.int8()."""
REPACKS = "support_avx512bf16_for_cpu"
"""Flag of a 4-bit map that lets the first evaluation on a CPU repack the weights."""
HELD = ("absmax", "offset", "code", "CB", "SCB")
"""Permanent tensors of a packing's state; all others are left over from the latest forward pass."""


def import_quietly() -> None:
    """Import bitsandbytes without its advice on optional kernels and its warnings about casts in LLM.int8().

    Private: the names of its loggers. Without them a run prints a warning at every 8-bit product.
    """
    logger = logging.getLogger(LIBRARY_LOG)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        import bitsandbytes  # noqa: F401  # for its side effects: the operators and their log
    finally:
        logger.setLevel(level)
    logging.getLogger(CASTS_LOG).setLevel(logging.ERROR)


def is_4bit(module: Any) -> bool:
    """Whether a packed map has 4 bits per weight, not 8.

    Private: `quant_state`, which only 4-bit maps have. Without it 4-bit and 8-bit maps cannot be distinguished once
    they are on a CPU.
    """
    return hasattr(module, "quant_state")


def is_double_nf4(module: Any) -> bool:
    """Whether a 4-bit map is packed as in QLoRA: NormalFloat, with double quantisation of the blocks' scales.

    Private: `weight.quant_type` and `weight.compress_statistics`. Without them a user's own packing would count as
    `--quantize nf4`.
    """
    weight = module.weight
    return bool(weight.quant_type == "nf4" and weight.compress_statistics)


def settle_map(module: Any) -> None:
    """Bring a freshly loaded map into its permanent state, as the first forward pass would.

    Private: `init_8bit_state` and `weight.CB` of 8-bit maps; `support_avx512bf16_for_cpu` and `compute_dtype` of 4-bit
    ones. Without it the first evaluation repacks 4-bit weights, rounds their scales, and breaks all gradients.
    """
    if not is_4bit(module):
        if module.weight.CB is not None:
            module.init_8bit_state()
        return
    setattr(module, REPACKS, False)
    if module.bias is not None:
        module.bias.data = module.bias.data.to(module.compute_dtype)


def unpacked_weight(module: Any) -> Tensor:
    """Dequantise the weights of a packed map.

    Private: `weight.quant_state` of 4-bit maps; `CB` and `SCB` of 8-bit ones, on the weight before the first forward
    pass and on `state` after it. Without them packed backbones cannot be exported or merged.

    Returns:
        `(d_out, d_in)`, float32.
    """
    from bitsandbytes import functional

    weight: Tensor
    if is_4bit(module):
        weight = functional.dequantize_4bit(module.weight.data, module.weight.quant_state)
    else:
        holder = module.weight if module.state.CB is None else module.state
        weight = functional.int8_vectorwise_dequant(holder.CB, holder.SCB)
    return weight.float()


def state_of(module: Any) -> Any:
    """The object with the scales and code books of a map's packed weight.

    Private: `quant_state` and `state`. Without them a copy of the model on the same tensors copies the scales.
    """
    return module.quant_state if is_4bit(module) else module.state


def state_tensors(state: Any) -> Iterator[Tensor]:
    """The permanent tensors of a `state_of`, including those of doubly quantised scales in its `state2`.

    Private: the names in `HELD`. Without them stored bytes and peak memory leave out the scales.
    """
    for part in (state, getattr(state, "state2", None)):
        found = vars(part) if part else {}
        yield from (found[name] for name in HELD if isinstance(found.get(name), Tensor))


def product_formulas() -> Mapping[Any, Callable[..., int]]:
    """FLOP formulas of bitsandbytes' products by operator; call it after importing bitsandbytes.

    Private: the names of the operators and their arguments. Without them the FLOPs of a packed backbone are too low.
    """
    return by_operator("bitsandbytes", _FORMULAS)


def _flops_4bit(inputs: tuple[int, ...], packed: object, shape: tuple[int, ...], *args: object, **kw: object) -> int:
    """FLOPs of inputs `(..., d_in)` times a packed weight of shape `(d_out, d_in)`."""
    return 2 * prod(inputs) * shape[0]


def _flops_8bit(inputs: tuple[int, ...], weight: tuple[int, ...], *args: object, **kw: object) -> int:
    return 2 * prod(inputs) * weight[0]


def _flops_mixed(inputs: tuple[int, ...], rounded: object, weight: tuple[int, ...], *args: object, **kw: object) -> int:
    return 2 * prod(inputs) * weight[0]


_FORMULAS: Mapping[str, Callable[..., int]] = {
    "gemm_4bit": _flops_4bit,
    "int8_scaled_mm": _flops_8bit,
    "int8_mixed_scaled_mm": _flops_mixed,
}
"""FLOP formulas by the operator's name."""
