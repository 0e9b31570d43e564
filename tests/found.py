"""What `best.yaml` holds, for a design of the same methods on every block."""

from __future__ import annotations

from typing import Any

from peftsearch.backbone.anatomy import Backbone
from peftsearch.design.design import Design
from tests.methods import place

CONCLUDED = {
    "verdict": {"kind": "tie", "statement": "No winner.", "settle": "", "p_value": None, "tied": []},
    "budget": {"text": "1%", "n_params": 10_000, "used": 9_000},
    "training": {"learning_rate": 0.01, "steps": 10},
}
"""What a run concluded, which reading back leaves alone."""


def best_of(backbone: Backbone, **sizes: int) -> dict[str, Any]:
    """The part of `best.yaml` that is read back, for each method at its size on every block."""
    design = Design(grouping="uniform", allocation=(1.0,) * 2, methods=(tuple(sizes),) * 2)
    return {
        "format": "peftsearch-best/1",
        "name": "trial 3",
        **CONCLUDED,
        "model": {
            "name": backbone.name,
            "revision": backbone.revision,
            "model_type": backbone.model_type,
            "n_params": backbone.n_params,
            "stacks": {stack.name: len(stack.blocks) for stack in backbone.stacks},
        },
        "task": {"name": "t", "kind": "classification", "labels": ["no", "yes"], "metric": "accuracy"},
        "design": design.to_dict(),
        "architecture": place(backbone, **sizes).to_dict(),
        "study": "elsewhere",
    }
