"""Quantised backbones: frozen linear maps kept in 4 or 8 bits by bitsandbytes, everything else in full precision.

`nf4` is QLoRA's (arXiv 2305.14314, sec. 3): NormalFloat in blocks of 64 weights, with the blocks' scales quantised
again (double quantisation). `int8` is LLM.int8() (arXiv 2208.07339) with its threshold of 6 for outliers. Only maps
inside the blocks are packed; embeddings, poolers and the head keep full precision. The methods' own parameters act on
the outputs of packed maps and are never packed.

On a CPU with AVX512-BF16, bitsandbytes 0.50 repacks 4-bit weights in the first evaluation, rounds their scales to bf16,
and later forward passes have no gradient. `settle` switches that off, so that the weights never change and training and
evaluation compute the same. int8 on a CPU trains on dequantised weights but evaluates with quantised activations too,
as this version of bitsandbytes does; the two differ by an 8-bit rounding error.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from peftsearch.backbone.maps import is_linear, list_head, widths
from peftsearch.backbone.packing import PACKINGS
from peftsearch.backbone.private_bitsandbytes import (
    import_quietly,
    is_4bit,
    is_double_nf4,
    product_formulas,
    settle_map,
    state_of,
    state_tensors,
    unpacked_weight,
)
from peftsearch.backbone.private_torch import share_hooks
from peftsearch.backbone.private_transformers import forget_packed_conversions
from peftsearch.errors import BackboneError

BLOCK = PACKINGS["nf4"].block
"""Weights that share a scale in NF4 (2305.14314, sec. 3)."""


def quantised_settings(
    how: str, skeleton: nn.Module, device: torch.device | str, compute_dtype: torch.dtype | None
) -> dict[str, Any]:
    """Arguments for `from_pretrained` that load a model with packed blocks.

    Args:
        how: `nf4` or `int8`.
        skeleton: The model without weights, on the meta device.
        device: Device for the model.
        compute_dtype: Precision in which 4-bit weights are multiplied; None is float32.

    Raises:
        BackboneError: bitsandbytes cannot pack this model.
    """
    import_quietly()
    from transformers import BitsAndBytesConfig

    config: Any = skeleton.config
    if getattr(config, "quantization_config", None) is not None:
        raise BackboneError("its files are quantised already; leave --quantize out")
    packed = {path: widths(module)[0] for path, module in maps_to_pack(skeleton).items()}
    whole = [path for path in _linear_maps(skeleton) if path not in packed]
    odd = {path: d_in for path, d_in in packed.items() if d_in % BLOCK}
    if how == "nf4" and odd:
        first = next(iter(odd))
        # The CPU kernel silently gives wrong weights for such widths (bitsandbytes 0.50, AVX512).
        raise BackboneError(
            f"nf4 packs blocks of {BLOCK} weights, and {len(odd)} of its {len(packed)} maps have an input width that "
            f"is not a multiple of {BLOCK} (first: {first}, {odd[first]}); use --quantize int8, or leave it out"
        )
    if how == "nf4":
        kind: dict[str, Any] = {
            "load_in_4bit": True,
            "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_use_double_quant": True,
            "bnb_4bit_compute_dtype": compute_dtype or torch.float32,
        }
    else:
        kind = {"load_in_8bit": True}
    return {
        "quantization_config": BitsAndBytesConfig(**kind, llm_int8_skip_modules=whole),
        "device_map": {"": torch.device(device)},
    }


def _linear_maps(model: nn.Module) -> dict[str, nn.Module]:
    return {path: module for path, module in model.named_modules() if is_linear(module)}


def maps_to_pack(model: nn.Module) -> dict[str, nn.Module]:
    """The linear maps inside the blocks, by path, excluding the head's, since a new map cannot be packed."""
    base = getattr(model, "base_model", model)
    head = tuple(f"{path}." for path in list_head(model, base))
    lists = tuple(f"{path}." for path, module in model.named_modules() if isinstance(module, nn.ModuleList))
    found = _linear_maps(model).items()
    return {path: m for path, m in found if path.startswith(lists) and not f"{path}.".startswith(head)}


def quantised_maps(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """The packed linear maps of a model, by path."""
    if "bitsandbytes" not in sys.modules:
        return
    from bitsandbytes.nn import Linear4bit, Linear8bitLt

    for path, module in model.named_modules():
        if isinstance(module, Linear4bit | Linear8bitLt):
            yield path, module


def quantisation_of(model: nn.Module) -> str | None:
    """Name of the quantisation with which a model was loaded; None for a plain model.

    Also None for files that were already packed, which load as they are, and for other packings of a user's choice.
    """
    found = next(quantised_maps(model), None)
    if found is None or getattr(getattr(model, "hf_quantizer", None), "pre_quantized", False):
        return None
    if not is_4bit(found[1]):
        return "int8"
    return "nf4" if is_double_nf4(found[1]) else None


def require_wide_maps(name: str, model: nn.Module) -> None:
    """Refuse 4-bit maps on a CPU whose width is no multiple of a block, which bitsandbytes multiplies wrongly there.

    Raises:
        BackboneError: There are such maps, in files that were packed elsewhere.
    """
    odd = {
        path: module.in_features
        for path, module in quantised_maps(model)
        if is_4bit(module) and module.in_features % BLOCK and module.weight.device.type == "cpu"
    }
    if odd:
        path, d_in = next(iter(odd.items()))
        raise BackboneError(
            f"model {name!r}: its files are packed in 4 bits, and {len(odd)} of its maps have an input width that "
            f"is not a multiple of {BLOCK} (first: {path}, {d_in}), which a CPU multiplies wrongly; give a GPU, or a "
            "model that is not packed"
        )


def settle(model: nn.Module) -> None:
    """Bring the packed maps of a freshly loaded model into their permanent state, which no forward changes."""
    for _, module in quantised_maps(model):
        settle_map(module)  # see the module's docstring


def dequantised(module: Any) -> Tensor:
    """Dequantise the weights of a packed map.

    Args:
        module: A map from `quantised_maps`.

    Returns:
        `(d_out, d_in)`, float32.
    """
    return unpacked_weight(module)


def dequantise(model: nn.Module) -> int:
    """Replace every packed map by a plain one with its dequantised weights; the caller should tell the user.

    Injected architectures stay: the maps' hooks move to the plain maps, and `merged` then folds them as on any model.
    The weights are those that the architecture was trained on, not the pretrained ones. Only loading the model again
    undoes this.

    Returns:
        Number of maps replaced.
    """
    found = list(quantised_maps(model))
    for path, module in found:
        weight = dequantised(module)
        plain = nn.Linear(module.in_features, module.out_features, bias=False, device="meta")
        plain.weight = nn.Parameter(weight, requires_grad=False)
        if module.bias is not None:
            plain.bias = module.bias
        share_hooks(module, plain)
        plain.train(module.training)
        model.set_submodule(path, plain)
    if found:
        forget_quantiser(model)
    return len(found)


def forget_quantiser(model: Any) -> None:
    """Remove transformers' quantisation marks from a model that is plain again, so that it can be saved as such."""
    for holder, names in (
        (model, ("hf_quantizer", "quantization_method", "is_quantized", "is_loaded_in_4bit", "is_loaded_in_8bit")),
        (getattr(model, "config", None), ("quantization_config",)),
    ):
        for name in names:
            if name in vars(holder):
                delattr(holder, name)
    forget_packed_conversions(model)


def packing_states(model: nn.Module) -> list[Any]:
    """For each packed map, the object with its scales and code books."""
    return [state_of(module) for _, module in quantised_maps(model)]


def packing_tensors(model: nn.Module) -> Iterator[Tensor]:
    """The tensors of `packing_states`, which are neither parameters nor buffers."""
    for state in packing_states(model):
        yield from state_tensors(state)


@contextmanager
def keeping_inputs(model: nn.Module, keep: Callable[[Tensor], object]) -> Iterator[None]:
    """Report to `keep` the inputs that 8-bit maps hold until the backward pass, which autograd's hooks do not see."""

    def see(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        if args[0].requires_grad:
            keep(args[0])

    handles = [m.register_forward_pre_hook(see) for _, m in quantised_maps(model) if not is_4bit(m)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def product_flops(model: nn.Module) -> Mapping[Any, Callable[..., int]]:
    """FLOP formulas of bitsandbytes' products, which torch's counter lacks; empty for a model without packed maps."""
    return {} if next(quantised_maps(model), None) is None else product_formulas()
