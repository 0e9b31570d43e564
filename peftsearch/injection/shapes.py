"""The shapes of a backbone, by which a saved folder knows the model that it belongs to.

Made from the anatomy and never from the weights' own shapes, so that a quantised backbone and a plain one, a bare
model and one with a head have the same.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from peftsearch.backbone.anatomy import Backbone
from peftsearch.methods.projections import name_projections

Shapes = dict[str, tuple[int, ...]]
"""By `encoder block 0, query`: output and input width of a map, or the width of a norm."""


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
    """Name the first place, in the order of the saved shapes, where two backbones differ; None where none does."""
    for place in dict.fromkeys([*saved, *own]):
        if saved.get(place) != own.get(place):
            return f"{place} is {_size(saved.get(place))} there and {_size(own.get(place))} in this model"
    return None


def _size(shape: tuple[int, ...] | None) -> str:
    return "missing" if shape is None else " x ".join(map(str, shape))
