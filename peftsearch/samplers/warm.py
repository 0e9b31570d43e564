"""A sampler that proposes given designs first and then hands over to another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from peftsearch.design.space import Choice
from peftsearch.samplers import evolution, random, tpe
from peftsearch.samplers.context import SamplerContext
from peftsearch.samplers.per_trial import PerTrialSampler
from peftsearch.study.trials import is_baseline, is_interrupted

_AFTER: dict[str, Callable[[SamplerContext], BaseSampler]] = {
    "evolution": evolution.make,
    "tpe": tpe.make,
    "random": random.make,
}


class WarmStartSampler(BaseSampler):
    """Propose the given designs that were not tried yet, then what another sampler proposes.

    Args:
        context: The context to sample from.
        first: Function that gives the designs to try first, as points of the space, from the stored study.
        then: Sampler that proposes afterwards: `evolution`, `tpe` or `random`.

    Raises:
        ValueError: There is no such sampler.
    """

    def __init__(
        self, context: SamplerContext, first: Callable[[Study], Sequence[dict[str, Choice]]], then: str
    ) -> None:
        if then not in _AFTER:
            raise ValueError(f"then must be one of {', '.join(_AFTER)}, got {then!r}")
        following = _AFTER[then](context)
        assert isinstance(following, PerTrialSampler)
        self._context = context
        self._first = first
        self._following = following

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """All dimensions of the space."""
        return self._context.distributions

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The first of the given designs that was not tried; after all of them, a proposal of the other sampler."""
        if is_baseline(trial):
            return {}
        identity, names = self._following.identity, search_space.keys()
        tried = [t for t in study.get_trials(deepcopy=False) if t.number < trial.number and names <= t.params.keys()]
        known = {identity(t.params) for t in tried if not is_interrupted(t)}
        for point in self._first(study):
            if identity(dict(point)) not in known:
                return dict(point)
        return self._following.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Delegate to the following sampler."""
        return self._following.sample_independent(study, trial, param_name, param_distribution)
