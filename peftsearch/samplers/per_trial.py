"""Makes an Optuna sampler depend on the stored history and the seed alone, and propose what can be trained.

Optuna's samplers hold a random generator that advances with every call and is lost with the process. Here every
trial gets a fresh sampler, seeded by the study's seed and the trial's place among those that count. The sampler sees
the trials that have a point of the space, baselines among them, and none that a killed process left behind.

A proposal that does not fit the budget, or that was proposed before (training is deterministic: it would tell nothing
new), is drawn again with another seed; when that does not help, the nearest design that will do takes its place. Far
from all that fits (a space that fixes sizes has such regions) it is the nearest of some drawn at random.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable, Iterable
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from peftsearch.samplers.context import SamplerContext
from peftsearch.study.private_optuna import StudyView
from peftsearch.study.trials import derived_seed, is_baseline, is_interrupted, next_place

_LOOKED_AT = 300
"""Designs around a proposal that are looked at for one that will do, and then as many drawn at random."""


class PerTrialSampler(BaseSampler):
    """Delegates each trial to a sampler made for it.

    Args:
        make: Makes the sampler for one trial from a seed.
        context: The space, the seed and what fits.
        draws: Proposals drawn in search of one that fits and is new.
        jointly: Whether the sampler is asked for all dimensions at once before it is asked for single ones.
    """

    def __init__(
        self, make: Callable[[int], BaseSampler], context: SamplerContext, *, draws: int, jointly: bool = True
    ) -> None:
        self._make = make
        self._context = context
        self._draws = draws
        self._jointly = jointly
        self._identities: dict[str, Hashable] = {}

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """All dimensions of the space."""
        return self._context.distributions

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """A point of the space; nothing for baselines, whose points are given."""
        if is_baseline(trial):
            return {}
        names = search_space.keys()
        view = StudyView(study, lambda t: not is_interrupted(t) and names <= t.params.keys())
        earlier = [t for t in study.get_trials(deepcopy=False) if t.number < trial.number]
        known = {self.identity(t.params) for t in view.get_trials(deepcopy=False) if t.number < trial.number}
        place = next_place(earlier) - 1
        first: dict[str, Any] | None = None
        for draw in range(self._draws):
            sampler = self._make(derived_seed(self._context.seed, place, *([draw] if draw else [])))
            params = self._draw(sampler, view, trial, search_space)
            if self._context.feasible(self._context.space.design(params)) and self.identity(params) not in known:
                return params
            first = first or params
        assert first is not None
        return self._near(first, known)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """A random value for a parameter that the space does not have, or a baseline does not give."""
        seed = derived_seed(self._context.seed, trial.number, param_name)
        return RandomSampler(seed=seed).sample_independent(study, trial, param_name, param_distribution)

    def identity(self, params: dict[str, Any]) -> Hashable:
        """What a point amounts to; equal for points that train the same architecture."""
        key = repr(sorted(params.items()))
        if key not in self._identities:
            design = self._context.space.design(params)
            fits = self._context.feasible(design)
            self._identities[key] = self._context.identity(design) if fits else design.key
        return self._identities[key]

    def _draw(
        self, sampler: BaseSampler, study: Study, trial: FrozenTrial, space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        open_dimensions = {name: d for name, d in space.items() if not d.single()}
        drawn = sampler.sample_relative(study, trial, open_dimensions) if self._jointly else {}
        for name, distribution in space.items():
            if name not in open_dimensions:
                drawn[name] = distribution.to_external_repr(0)
            elif name not in drawn:
                drawn[name] = sampler.sample_independent(study, trial, name, distribution)
        return {name: drawn[name] for name in space}

    def _near(self, params: dict[str, Any], known: Iterable[Hashable]) -> dict[str, Any]:
        """The nearest design that fits and is new; else the nearest found that fits; else the one given."""
        space, fits = self._context.space, self._context.feasible
        found = params if fits(space.design(params)) else None
        ring, seen = [params], {space.design(params).key}
        for point in ring:
            for near in space.neighbours(point) if len(seen) < _LOOKED_AT else ():
                design = space.design(near)
                if design.key in seen:
                    continue
                seen.add(design.key)
                ring.append(near)
                if fits(design):
                    if self.identity(near) not in known:
                        return near
                    found = found or near
        return found or self._anywhere(params, known) or params

    def _anywhere(self, params: dict[str, Any], known: Iterable[Hashable]) -> dict[str, Any] | None:
        """Of designs drawn at random that fit and are new, the one that differs in the fewest choices."""
        space = self._context.space
        rng = random.Random(derived_seed(self._context.seed, sorted(params.items())))
        drawn = [{d.name: rng.choice(d.choices) for d in space.dimensions} for _ in range(_LOOKED_AT)]
        fitting = [p for p in drawn if self._context.feasible(space.design(p)) and self.identity(p) not in known]
        return min(fitting, key=lambda p: sum(p[name] != params[name] for name in p), default=None)


def require_whole(low: int, **settings: Any) -> None:
    """Check settings of a sampler.

    Raises:
        ValueError: One of them is no whole number of at least `low`.
    """
    for name, value in settings.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < low:
            raise ValueError(f"{name} must be a whole number of at least {low}, got {value!r}")
