"""Dequantisation of a quantised backbone before an export."""

from __future__ import annotations

from typing import Any

from peftsearch.backbone.quantised import dequantise, quantisation_of, quantised_maps
from peftsearch.exporter.check import probe


def unpack(model: Any) -> list[str]:
    """Replace packed maps by plain ones with the dequantised weights, which the training used.

    nf4 computes with these weights, so the logits do not change. int8 also rounds activations, which changes the logits
    by the rounding error.

    Returns:
        A line for the user; empty where nothing is packed.
    """
    if next(quantised_maps(model), None) is None:
        return []
    how, packed = quantisation_of(model), probe(model)
    n_maps = dequantise(model)
    moved = float((packed - probe(model)).abs().max())
    return [
        f"{n_maps} {how or 'quantised'} maps were dequantised first, which changes the logits by {moved:.1g}: the "
        "trained parameters belong to these weights, not to the pretrained ones"
    ]
