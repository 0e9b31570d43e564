"""Makes an Optuna sampler depend on the stored history and the seed alone.

Optuna's samplers hold a random generator that advances with every call and is lost with the process. Here every
trial gets a fresh sampler, seeded by the study's seed and the trial's place among those that count.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from peftsearch.samplers.context import derived_seed, next_place


class PerTrialSampler(BaseSampler):
    """Delegates each trial to a sampler made for it.

    Args:
        make: Makes the sampler for one trial from a seed.
        seed: The study's seed.
        relative: The dimensions to sample jointly. Optuna would infer them from the trials so far, and infer none as
            soon as one trial (a baseline outside the space) has none. None leaves it to the sampler.
    """

    def __init__(
        self, make: Callable[[int], BaseSampler], seed: int, relative: dict[str, BaseDistribution] | None = None
    ) -> None:
        self._make = make
        self._relative = relative
        self._seed = seed
        self._current: tuple[int, BaseSampler] | None = None

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The dimensions to sample jointly."""
        if self._relative is not None:
            return self._relative
        return self._of(study, trial).infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """As the trial's sampler does."""
        return self._of(study, trial).sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """As the trial's sampler does."""
        return self._of(study, trial).sample_independent(study, trial, param_name, param_distribution)

    def _of(self, study: Study, trial: FrozenTrial) -> BaseSampler:
        if self._current is None or self._current[0] != trial.number:
            earlier = [t for t in study.get_trials(deepcopy=False) if t.number < trial.number]
            self._current = (trial.number, self._make(derived_seed(self._seed, next_place(earlier) - 1)))
        return self._current[1]
