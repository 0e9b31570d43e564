"""A training-free warm start: designs by a knapsack over scores of (block, method) pairs, then another sampler.

The scores come from gradients of a few batches (`engine.saliency`). The first design is the one whose sizes are nearest
(fewest parameters elsewhere) to the knapsack's unconstrained use of the budget; the next are those worth most by the
scores, each architecture once. Both are found by hill climbing along the space's neighbours, from a few random designs.
The scores and the designs are stored in the study at first use; a resumed search uses the stored ones.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from optuna.samplers import BaseSampler
from optuna.study import Study

from peftsearch.design.architecture import Architecture
from peftsearch.design.fitting import fit
from peftsearch.design.space import Choice
from peftsearch.errors import ConfigError
from peftsearch.samplers.context import SamplerContext
from peftsearch.samplers.knapsack import Scores, fill, worth
from peftsearch.samplers.per_trial import require_whole
from peftsearch.samplers.warm import warm_started
from peftsearch.study.notes import SENSITIVITY, keep_sensitivity, sensitivity_of
from peftsearch.study.trials import derived_seed

_STARTS = 3
"""Number of random designs from which the nearest one is searched."""
_LOOKED_AT = 1000
"""Number of designs to fit in all climbs together; takes some seconds, more for larger budgets."""


def make(context: SamplerContext, *, n_warm: int = 6, then: str = "tpe") -> BaseSampler:
    """The warm start, followed by another sampler.

    Args:
        context: The context to sample from, with scores, backbone and budget.
        n_warm: Number of designs by the scores.
        then: Sampler that proposes afterwards: `evolution`, `tpe` or `random`.

    Raises:
        ConfigError: The context has no scores, backbone or budget.
    """
    require_whole(1, n_warm=n_warm)
    if context.sensitivity is None or context.backbone is None or context.budget is None:
        raise ConfigError("the sensitivity sampler needs a loaded backbone and training data to score methods on")
    return warm_started(context, lambda study: _stored_designs(study, context, n_warm), then)


def _stored_designs(study: Study, context: SamplerContext, n_warm: int) -> list[dict[str, Choice]]:
    """The stored designs; the first call measures the scores and stores both."""
    stored = sensitivity_of(study)
    if stored is None:
        assert context.sensitivity is not None
        scores = context.sensitivity()
        designs = warm_designs(context, scores, n_warm)
        stored = {"scores": [[*pair, score] for pair, score in scores.items()], "designs": designs}
        keep_sensitivity(study, stored)
    points: list[dict[str, Choice]] = stored["designs"]
    return points


def warm_designs(context: SamplerContext, scores: Scores, n_designs: int) -> list[dict[str, Choice]]:
    """The design nearest to the knapsack's use of the budget, then those worth most, each architecture once.

    Args:
        context: The space, the backbone, the budget and the seed.
        scores: Scores of all pairs of block and method.
        n_designs: Number of designs; fewer are returned if the search along neighbours finds no more.
    """
    backbone, budget, space = context.backbone, context.budget, context.space
    assert backbone is not None
    assert budget is not None
    wanted = fill(scores, backbone, budget)
    pool: dict[str, tuple[dict[str, Choice], Architecture]] = {}

    def seen(params: dict[str, Choice]) -> Architecture | None:
        """Add a point to the pool and return its architecture; None if it does not fit."""
        design = space.design(params)
        if design.key not in pool:
            if not context.feasible(design):
                return None
            pool[design.key] = (params, fit(design, backbone, budget))
        return pool[design.key][1]

    def climb(params: dict[str, Choice], cost: Callable[[Architecture], float]) -> dict[str, Choice]:
        architecture = seen(params)
        assert architecture is not None
        best, most = cost(architecture), len(pool) + _LOOKED_AT // (_STARTS + 1)
        while len(pool) < most:
            near = [(cost(a), i, p) for i, p in enumerate(space.neighbours(params)) if (a := seen(p)) is not None]
            if not near or min(near)[0] >= best:
                return params
            best, _, params = min(near)
        return params

    def distance(architecture: Architecture) -> float:
        own = {(p.stack, p.block, p.method): p.n_params for p in architecture.placements}
        return sum(abs(own.get(pair, 0) - wanted.get(pair, 0)) for pair in own.keys() | wanted.keys())

    ends = [climb(start, distance) for start in _starts(context)]
    if not ends:
        return []
    nearest = min(ends, key=lambda p: distance(pool[space.design(p).key][1]))
    climb(nearest, lambda architecture: -worth(architecture, scores))
    first = pool[space.design(nearest).key]
    ordered = [first, *sorted(pool.values(), key=lambda entry: -worth(entry[1], scores))]
    distinct: dict[Architecture, dict[str, Choice]] = {}
    for params, architecture in ordered:
        distinct.setdefault(architecture, params)
    return list(distinct.values())[:n_designs]


def _starts(context: SamplerContext) -> list[dict[str, Choice]]:
    """A few random designs that fit, with the middle learning rate where the space has several."""
    rng = random.Random(derived_seed(context.seed, SENSITIVITY))
    found: list[dict[str, Choice]] = []
    for _ in range(200):
        params = {d.name: rng.choice(d.choices) for d in context.space.dimensions}
        params |= {
            d.name: d.choices[len(d.choices) // 2] for d in context.space.dimensions if d.name == "learning_rate"
        }
        if context.feasible(context.space.design(params)):
            found.append(params)
        if len(found) == _STARTS:
            break
    return found
