"""The private parts of bitsandbytes that the package uses: what broke, and who uses it."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from torch import nn

from peftsearch.backbone import private_bitsandbytes as private
from peftsearch.backbone.quantised import quantised_maps
from tests.quantised import load

pytest.importorskip("bitsandbytes", reason="needs the extra quant")
HOWS = ("nf4", "int8")


def broken(part: str, users: str) -> str:
    version = metadata.version("bitsandbytes")
    return f"bitsandbytes {version}: {part} changed; adapt private_bitsandbytes.py, used by {users}"


def packed(how: str) -> Any:
    """The first packed map of a tiny model, with its path."""
    return next(quantised_maps(load("bert", how).model))


@pytest.mark.parametrize("how", HOWS)
def test_4_and_8_bits_are_told_apart(how: str) -> None:
    told = broken("`quant_state`, which 4-bit maps alone have,", "backbone/quantised.py")
    assert private.is_4bit(packed(how)[1]) == (how == "nf4"), told


def test_qloras_packing_is_known() -> None:
    from bitsandbytes.nn import Linear4bit

    told = broken("`weight.quant_type` or `weight.compress_statistics`", "backbone/quantised.py: quantisation_of")
    assert private.is_double_nf4(packed("nf4")[1]), told
    assert not private.is_double_nf4(Linear4bit(64, 64, quant_type="fp4")), told
    assert not private.is_double_nf4(Linear4bit(64, 64, quant_type="nf4", compress_statistics=False)), told


def test_a_settled_4_bit_map_is_never_repacked() -> None:
    from bitsandbytes.nn import Linear4bit

    users = "backbone/quantised.py: settle; until then evaluation on a CPU may round the scales and end all gradients"
    assert private.REPACKS in vars(Linear4bit(64, 64)), broken(f"the flag `{private.REPACKS}`", users)
    module = packed("nf4")[1]
    assert vars(module)[private.REPACKS] is False, broken(f"the flag `{private.REPACKS}`", users)
    assert module.bias.dtype == module.compute_dtype, broken("`compute_dtype`", users)


def test_a_settled_8_bit_map_keeps_its_weights_in_its_state() -> None:
    module = packed("int8")[1]
    told = broken("`init_8bit_state`, which moves CB and SCB to `state`,", "backbone/quantised.py: settle")
    assert module.weight.CB is None, told
    assert module.state.CB is not None, told
    assert module.state.SCB is not None, told


@pytest.mark.parametrize("how", HOWS)
def test_a_map_gives_the_weights_that_it_stands_for(how: str) -> None:
    path, module = packed(how)
    plain: nn.Linear = load("bert", None).model.get_submodule(path)
    weight = private.unpacked_weight(module)
    told = broken("`weight.quant_state`, `CB` or `SCB`", "backbone/quantised.py: dequantised, and all that exports")
    assert (weight.shape, weight.dtype) == (plain.weight.shape, torch.float32), told
    assert 0 < (weight - plain.weight).abs().max() < 0.2 * plain.weight.abs().max(), told


@pytest.mark.parametrize(("how", "n_tensors"), [("nf4", 5), ("int8", 2)])
def test_the_states_lasting_tensors_are_known_by_name(how: str, n_tensors: int) -> None:
    """Scales, their offset and code book, and scales and code book of the scales; 8-bit weights and their scales."""
    found = list(private.state_tensors(private.state_of(packed(how)[1])))
    told = broken(f"the names {private.HELD} in a map's state", "engine/measure.py, by way of packing_tensors")
    assert len(found) == n_tensors, told


def test_the_products_are_operators() -> None:
    packed("nf4")  # imports bitsandbytes
    users = "backbone/quantised.py: product_flops; until then its FLOPs are not counted"
    assert len(private.product_formulas()) == 3, broken("the name of a product's operator", users)


def test_the_log_of_casts_is_that_of_a_module() -> None:
    told = broken(f"the module {private.CASTS_LOG}, whose log is silenced,", "backbone/quantised.py")
    assert find_spec(private.CASTS_LOG) is not None, told


def test_nothing_private_is_looked_up_at_import() -> None:
    code = (
        "import sys; import peftsearch.backbone.quantised, peftsearch.backbone.private_transformers; "
        "print([m for m in ('bitsandbytes', 'transformers') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"
