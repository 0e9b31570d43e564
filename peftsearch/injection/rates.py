"""Learning rates that follow the size: the more parameters a block trains, the less each of them may move.

AdamW moves every parameter by about its rate, so that a block's function changes by about rate x sqrt(n) in a step, n
being the number of its trained parameters; rank-stabilised LoRA argues alike for ranks (arXiv 2312.03732, sec. 3). So
the rate of a placement is base x `lr_scale` of its method x sqrt(`REFERENCE_SIZE` / n). One base rate then suits all
sizes of a method, and all mixes: measured on TREC and SST-5 at 0.1% and 0.5% of MiniLM-L6 (see
experiments/2026-11-26-hybrid-benchmark).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from math import sqrt

from peftsearch.backbone.anatomy import Backbone
from peftsearch.design.architecture import Architecture, Placement
from peftsearch.methods import get_method
from peftsearch.methods.abilities import ModelWide, Sharing, sharing_key

REFERENCE_SIZE = 7_000
"""Trained parameters of a block at which a method's own `lr_scale` holds."""


def size_factors(architecture: Architecture, backbone: Backbone) -> dict[str, float]:
    """Factor on the rate of each placement, by its key; 1 for methods whose rate does not follow the size.

    Parameters that placements share count evenly on all of them; those of a method that acts once per model count
    evenly on all blocks.
    """
    sizes = _sizes(architecture.placements)
    n_blocks = len(backbone.blocks)
    everywhere, on_block = 0.0, dict.fromkeys(((b.stack, b.index) for b in backbone.blocks), 0.0)
    for p in architecture.placements:
        if isinstance(get_method(p.method), ModelWide):
            everywhere += sizes[p.key] / n_blocks
        else:
            on_block[p.stack, p.block] += sizes[p.key]
    return {
        p.key: sqrt(REFERENCE_SIZE / (everywhere + on_block[p.stack, p.block]))
        if get_method(p.method).lr_follows_size  # a mixed method's says so for the parts that do
        else 1.0
        for p in architecture.placements
    }


def _sizes(placements: Sequence[Placement]) -> dict[str, float]:
    """Parameters of each placement, by its key; the mean over placements that share some."""
    together: dict[Hashable, list[Placement]] = {}
    for p in placements:
        method = get_method(p.method)
        key: Hashable = sharing_key(method, p.stack, p.group) if isinstance(method, Sharing) else p.key
        together.setdefault(key, []).append(p)
    return {p.key: sum(q.n_params for q in own) / len(own) for own in together.values() for p in own}
