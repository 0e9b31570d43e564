"""Make an Optuna sampler depend on the stored history and the seed alone, and propose only designs that can be trained.

Optuna's samplers hold a random generator that advances with every call and is lost with the process. Here every
trial gets a new sampler, seeded by the study's seed and the trial's place among those that count. The sampler sees
the trials that have a point of the space, including baselines, but no trials that a killed process left behind.

A proposal that does not fit the budget, or that repeats an earlier one (training is deterministic, so a repetition
would give no information), is drawn again with another seed. If no draw succeeds, the nearest design that fits and is
new takes its place. Where nothing near fits (a space that fixes sizes has such regions), it is the nearest of some
designs drawn at random.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from peftsearch.design.space import Choice
from peftsearch.samplers.context import SamplerContext
from peftsearch.study.private_optuna import StudyView
from peftsearch.study.trials import derived_seed, is_baseline, is_interrupted, next_place

_LOOKED_AT = 300
"""Number of designs around a proposal to check for one that fits and is new, then of designs drawn at random."""


class PerTrialSampler(BaseSampler):
    """Delegate each trial to a sampler made for it.

    Args:
        make: Makes the sampler for one trial from a seed.
        context: The space, the seed and the check whether a design fits.
        draws: Most proposals to draw until one fits and is new.
        jointly: Whether to ask the sampler for all dimensions together before asking for the missing ones singly.
    """

    def __init__(
        self, make: Callable[[int], BaseSampler], context: SamplerContext, *, draws: int, jointly: bool = True
    ) -> None:
        self._make = make
        self._context = context
        self._draws = draws
        self._jointly = jointly
        self._identities: dict[str, Hashable] = {}
        self.first: Callable[[Study], Iterable[Mapping[str, Choice]]] = lambda _: ()
        """Function that gives, from the stored study, points to propose before all others."""

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
        for point in self.first(study):
            if self.identity(dict(point)) not in known:
                return dict(point)
        # The place, not the number: the retry of an interrupted trial has a new number but must get the same seed.
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
        """A random value for a parameter that is not in the space, or that a baseline does not give."""
        seed = derived_seed(self._context.seed, trial.number, param_name)
        return RandomSampler(seed=seed).sample_independent(study, trial, param_name, param_distribution)

    def identity(self, params: dict[str, Any]) -> Hashable:
        """Identity of a point; equal for points that train the same architecture."""
        key = repr(sorted(params.items()))
        if key not in self._identities:
            design = self._context.space.design(params)
            fits = self._context.feasible(design)
            # A design that does not fit has no architecture to be identified by, so its own key stands in.
            self._identities[key] = self._context.identity(design) if fits else design.key
        return self._identities[key]

    def _draw(
        self, sampler: BaseSampler, study: Study, trial: FrozenTrial, space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        # As in Optuna's own search spaces, a dimension with a single choice is left out: there is nothing to sample.
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
        # Breadth first: `ring` grows while it is read, so designs come in the order of their distance from `params`.
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
        """The design with the fewest different choices, among random designs that fit and are new; None without any."""
        space = self._context.space
        # Seeded by the point, not by the trial, so that the result depends only on the point and on what is known.
        rng = random.Random(derived_seed(self._context.seed, sorted(params.items())))
        drawn = [{d.name: rng.choice(d.choices) for d in space.dimensions} for _ in range(_LOOKED_AT)]
        fitting = [p for p in drawn if self._context.feasible(space.design(p)) and self.identity(p) not in known]
        return min(fitting, key=lambda p: sum(p[name] != params[name] for name in p), default=None)


def require_whole(low: int, **settings: Any) -> None:
    """Check that settings of a sampler are whole numbers of at least `low`.

    Raises:
        ValueError: A setting is not.
    """
    for name, value in settings.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < low:
            raise ValueError(f"{name} must be a whole number of at least {low}, got {value!r}")
