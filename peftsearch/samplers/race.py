"""A portfolio of designs that did well elsewhere, then another sampler that learns from their paired losses.

The portfolio was chosen on recorded trainings by regret, with the task left out that it is measured on (see
experiments/2026-11-26-hybrid-benchmark). Its designs are written as mixes on all blocks, such as `lora+ia3`, or as a
mapping with `methods`, and where they differ from uniform, `allocation` (increasing, decreasing), `tunable` (G3+G4) or
`budget_share`. Those that the space does not have, that do not fit, or that are already among the baselines are left
out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from optuna.samplers import BaseSampler

from peftsearch.design.baselines import point_of
from peftsearch.design.design import Design
from peftsearch.design.space import ALLOCATIONS, Choice, allocation_weights
from peftsearch.errors import ConfigError, MethodError
from peftsearch.methods import get_method
from peftsearch.samplers.context import SamplerContext
from peftsearch.samplers.warm import warm_started

Entry = str | Mapping[str, Any]


def make(context: SamplerContext, *, portfolio: Sequence[Entry], then: str = "evolution") -> BaseSampler:
    """The portfolio, followed by another sampler.

    Args:
        context: The context to sample from.
        portfolio: Designs to try first, in this order.
        then: Sampler that proposes afterwards: `evolution`, `tpe` or `random`.
    """
    points = points_of(context, portfolio)
    return warm_started(context, lambda _: points, then)


def points_of(context: SamplerContext, portfolio: Sequence[Entry]) -> list[dict[str, Choice]]:
    """The designs of a portfolio that the space has and that fit, as points of the space.

    Raises:
        ConfigError: An entry is malformed.
    """
    space, names = context.space, {d.name for d in context.space.dimensions}
    groups = [d.removeprefix("methods.") for d in sorted(names) if d.startswith("methods.")]
    found = []
    n_blocks = len(context.backbone.blocks) if context.backbone is not None else len(groups)
    for entry in portfolio:
        design = _design(entry, groups, leaves_out=bool(getattr(space, "leave_out", False)))
        point = None if design is None else point_of(design, space, n_blocks)
        if point is not None and context.feasible(space.design(point)):
            found.append(point)
    return found


def _design(entry: Entry, groups: Sequence[str], *, leaves_out: bool) -> Design | None:
    """The design of an entry in as many groups as the space has; None if the space has none."""
    facts = {"methods": entry} if isinstance(entry, str) else dict(entry)
    if unknown := set(facts) - {"methods", "allocation", "tunable", "budget_share"}:
        raise ConfigError(f"portfolio: unknown keys {sorted(map(str, unknown))} in {entry!r}")
    if not groups:
        return None
    methods = tuple(str(facts.get("methods", "")).split("+"))
    try:
        for method in methods:
            get_method(method)
    except MethodError as error:
        raise ConfigError(f"portfolio: {error}") from error
    allocation = str(facts.get("allocation", "uniform"))
    if allocation not in ALLOCATIONS:
        raise ConfigError(f"portfolio: allocation must be one of {', '.join(ALLOCATIONS)}, got {allocation!r}")
    tuned = str(facts.get("tunable", "+".join(groups))).split("+")
    return Design(
        grouping="uniform",
        allocation=allocation_weights(allocation, len(groups)),
        methods=tuple(methods if group in tuned else () for group in groups),
        budget_share=float(facts.get("budget_share", 1.0)),
        leave_out=leaves_out,
    )
