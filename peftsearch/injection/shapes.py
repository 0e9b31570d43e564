"""Shapes of a backbone, which identify the model that a saved folder belongs to.

They come from the anatomy and never from the weights' own shapes, so that quantised and plain backbones, and models
with and without a head, have the same shapes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from peftsearch.backbone.anatomy import Backbone
from peftsearch.methods.projections import name_projections

Shapes = dict[str, tuple[int, ...]]
"""Output and input width of a map, or width of a norm, by its place: `encoder block 0, query`."""


def list_shapes(backbone: Backbone) -> Shapes:
    """The widths of all maps and norms of a backbone's blocks, input side first."""
    shapes: Shapes = {}
    for block in backbone.blocks:
        where = f"{block.stack} block {block.index}"
        shapes |= {f"{where}, {name}": (p.d_out, p.d_in) for name, p in name_projections(block).items()}
        shapes |= {f"{where}, norm{i}": (norm.width,) for i, norm in enumerate(block.norms)}
    return shapes


def fingerprint_shapes(backbone: Backbone) -> str:
    """Fingerprint the family, the shapes and the count: `sha256:` and 16 hex digits."""
    facts = [backbone.model_type, backbone.n_params, list(list_shapes(backbone).items())]
    return f"sha256:{hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]}"


def first_mismatch(saved: Mapping[str, tuple[int, ...]], own: Mapping[str, tuple[int, ...]]) -> str | None:
    """Describe the first difference between two backbones, in the order of the saved shapes; None without any."""
    for place in dict.fromkeys([*saved, *own]):
        if saved.get(place) != own.get(place):
            return f"{place} is {_size(saved.get(place))} there and {_size(own.get(place))} in this model"
    return None


def _size(shape: tuple[int, ...] | None) -> str:
    return "missing" if shape is None else " x ".join(map(str, shape))
