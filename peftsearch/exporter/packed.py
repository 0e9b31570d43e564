"""What an export does about a quantised backbone: it goes on with the plain weights that the packed ones stand for."""

from __future__ import annotations

from typing import Any

from peftsearch.backbone.quantised import dequantise, quantisation_of, quantised_maps
from peftsearch.exporter.check import probe


def unpack(model: Any) -> list[str]:
    """Replace packed maps by plain ones with the weights that were trained on.

    nf4 computes with those weights, so the logits stay as they are. int8 rounds activations too, and they move by that.

    Returns:
        A line for the user; none where nothing is packed.
    """
    if next(quantised_maps(model), None) is None:
        return []
    how, packed = quantisation_of(model), probe(model)
    n_maps = dequantise(model)
    moved = float((packed - probe(model)).abs().max())
    return [
        f"{n_maps} {how or 'quantised'} maps were dequantised first, which moves the logits by {moved:.1g}: what was "
        "trained belongs to these weights, not to the pretrained ones"
    ]
