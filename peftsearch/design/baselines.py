"""Designs that every study tries first: the ones a user would try by hand, and the one that the S4 paper found."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import product

from peftsearch.backbone.anatomy import Backbone
from peftsearch.design.design import UNTUNED, Design
from peftsearch.design.grouping import group_sizes
from peftsearch.design.space import DesignSpace
from peftsearch.methods import METHODS
from peftsearch.methods.support import find_obstacle

SINGLE_METHODS = ("lora", "lora:ffn", "lora:all", "ia3", "bitfit", "layernorm", "adapter", "prefix", "krona")
"""What an expert would try: methods alone, uniformly over all blocks, at the same budget."""
S4_PAPER = Design(
    grouping="spindle",
    allocation=(1.0, 1.0, 1.0, 1.0),
    methods=(
        ("adapter", "lora"),
        ("adapter", "prefix"),
        ("adapter", "prefix", "bitfit"),
        ("prefix", "bitfit", "lora"),
    ),
)
"""The design that arXiv 2301.01821 found with T5-base (sec. 4, S4-model)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Baseline:
    """A named design of the comparison."""

    name: str
    design: Design
    params: dict[str, str | float] | None
    """The design as a point of the space; None when the space does not contain it."""
    family: str
    """Name without learning rate and share of the budget: `lora`."""


def baselines_of(space: DesignSpace, backbone: Backbone) -> list[Baseline]:
    """The baselines on a backbone, at every learning rate and share of the budget that the space may choose.

    Methods that cannot act on the backbone are left out, and so is the S4 paper's design when it needs one of them.
    """
    usable = usable_methods(backbone, SINGLE_METHODS)
    single = [(name, _uniform(name, space, backbone)) for name in SINGLE_METHODS if name in usable]
    untuned = UNTUNED[0] if backbone.head else UNTUNED[1]
    named = [(untuned, uniform()), *single]
    if len(backbone.blocks) >= 4 and {m for group in S4_PAPER.methods for m in group} <= set(usable):
        named.append(("s4-paper", S4_PAPER))
    choices = {d.name: d.choices for d in space.dimensions}
    found = []
    for family, design in named:
        shares = choices.get("budget_share", ()) if design.tunable else ()
        for share, rate in product(map(float, shares or (1.0,)), choices.get("learning_rate", (None,))):
            name = family + (f" {100 * share:g}%" if share != 1 else "") + (f" lr={rate:g}" if rate else "")
            point = replace(design, budget_share=share, learning_rate=None if rate is None else float(rate))
            params = point_of(point, space, len(backbone.blocks))
            found.append(Baseline(name=name, design=point, params=params, family=family))
    return found


def point_of(design: Design, space: DesignSpace, n_blocks: int) -> dict[str, str | float] | None:
    """The design as a point of the space, by whichever name the space has for its grouping on this depth."""
    names = [str(c) for d in space.dimensions if d.name == "grouping" for c in d.choices]
    n_groups = len(design.methods)
    same = [n for n in names if group_sizes(n, n_blocks, n_groups) == group_sizes(design.grouping, n_blocks, n_groups)]
    # A baseline that fits whole is the same with or without the permission to leave blocks out.
    own = replace(design, leave_out=bool(getattr(space, "leave_out", False)))
    found = (space.params(replace(own, grouping=name)) for name in same)
    return next((params for params in found if params is not None), None)


def usable_methods(backbone: Backbone, variants: Iterable[str] = ()) -> tuple[str, ...]:
    """The methods of the table that can act on every block, and those of some variants that can."""
    names = dict.fromkeys((*METHODS, *variants))
    return tuple(name for name in names if find_obstacle(name, backbone) is None)


def uniform(*methods: str) -> Design:
    """A design with all the methods together on every block."""
    return Design(grouping="uniform", allocation=(1.0,), methods=(methods,))


def _uniform(method: str, space: DesignSpace, backbone: Backbone) -> Design:
    """One method on all blocks, in the number of groups that the space uses, so that its samplers learn from it."""
    n_groups = max(1, sum(d.name.startswith(("methods.", "rank.")) for d in space.dimensions))
    if n_groups > len(backbone.blocks):
        n_groups = 1
    return Design(grouping="uniform", allocation=(1.0,) * n_groups, methods=((method,),) * n_groups)
