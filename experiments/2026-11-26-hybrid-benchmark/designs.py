"""The designs of the benchmark: singles, uniform mixes, other shapes of them, and random draws from `hybrid`."""

from __future__ import annotations

import random

from peftsearch.backbone.anatomy import Backbone
from peftsearch.design.baselines import S4_PAPER
from peftsearch.design.budget import parse_budget
from peftsearch.design.design import Design
from peftsearch.design.feasibility import feasibility
from peftsearch.design.space import load_space

SINGLES = (
    "lora",
    "lora:ffn",
    "ia3",
    "layernorm",
    "bitfit",
    "adapter",
    "adapter_parallel",
    "prefix",
    "krona",
    "lora:attention",
    "lora:all",
    "lora_shared_a",
    "lora_shared_a:ffn",
    "lora_shared_a:all",
    "ia3:all",
)
MIXES = (
    "lora+ia3",
    "lora+layernorm",
    "ia3+layernorm",
    "ia3+adapter_parallel",
    "layernorm+adapter_parallel",
    "ia3+krona",
    "lora:ffn+layernorm",
    "lora_shared_a+ia3",
    "lora_shared_a:ffn+ia3",
    "lora_shared_a:ffn+layernorm",
    "adapter_parallel+krona",
    "prefix+adapter_parallel",
    "lora+adapter_parallel",
    "ia3+layernorm+adapter_parallel",
    "lora_shared_a+ia3+layernorm",
    "lora+bitfit",
    "layernorm+krona",
)
SHAPES = {
    "lora, increasing": ("increasing", "lora", "1234"),
    "lora, decreasing": ("decreasing", "lora", "1234"),
    "lora, upper half": ("uniform", "lora", "34"),
    "adapter_parallel, increasing": ("increasing", "adapter_parallel", "1234"),
    "adapter_parallel, upper half": ("uniform", "adapter_parallel", "34"),
    "lora+ia3, increasing": ("increasing", "lora+ia3", "1234"),
}
WEIGHTS = {"increasing": (1.0, 2.0, 3.0, 4.0), "uniform": (1.0,) * 4, "decreasing": (4.0, 3.0, 2.0, 1.0)}
N_DRAWN = 22


def fixed() -> dict[str, Design]:
    """The designs that are not drawn, by name."""
    found = {name: _design(name) for name in (*SINGLES, *MIXES)}
    found |= {name: _design(mix, pattern, tuned) for name, (pattern, mix, tuned) in SHAPES.items()}
    return found | {"s4-paper": S4_PAPER}


def drawn(backbone: Backbone, budget: str, n: int = N_DRAWN) -> dict[str, Design]:
    """Random designs of `hybrid` that fit, by name, the same on every machine."""
    space = load_space("hybrid").bound_to(len(backbone.blocks), load_space("hybrid").methods)
    fits = feasibility(backbone, parse_budget(budget, backbone.n_params))
    rng, found = random.Random(0), {}
    while len(found) < n:
        design = space.design({d.name: rng.choice(d.choices) for d in space.dimensions})
        if fits(design):
            found[f"drawn {len(found) + 1}"] = design
    return found


def _design(mix: str, pattern: str = "uniform", tuned: str = "1234") -> Design:
    methods = tuple(tuple(mix.split("+")) if str(i + 1) in tuned else () for i in range(4))
    return Design(grouping="uniform", allocation=WEIGHTS[pattern], methods=methods, leave_out=True)
