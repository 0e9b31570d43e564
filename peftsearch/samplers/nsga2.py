"""NSGA-II (Deb et al., 2002, doi 10.1109/4235.996017), as Optuna implements it: several objectives, or one.

Optuna stores a trial's generation in the trial's system attributes and a generation's parents in the study's, so it
decides from the stored history. Baselines have no generation, and interrupted trials have failed: neither is a member
of a population.
"""

from __future__ import annotations

from optuna.samplers import BaseSampler, NSGAIISampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from peftsearch.samplers.context import SamplerContext
from peftsearch.samplers.per_trial import PerTrialSampler, require_whole


def make(context: SamplerContext, *, population_size: int = 8, swapping_prob: float = 0.5) -> BaseSampler:
    """Optuna's NSGA-II sampler, seeded per trial.

    Args:
        context: The context to sample from.
        population_size: Number of completed trials in a generation.
        swapping_prob: Probability that a child takes a dimension from its second parent.
    """
    require_whole(2, population_size=population_size)
    return PerTrialSampler(
        lambda seed: NSGA2Sampler(seed=seed, population_size=population_size, swapping_prob=swapping_prob),
        context,
        draws=50,
    )


class NSGA2Sampler(NSGAIISampler):
    """Optuna's NSGA-II with a fixed order of parents.

    In Optuna the first trial of a generation gets the parents in the order of selection, later trials, which read them
    from the study, in the order of the trials. A first trial that is interrupted and rerun would draw other parents.
    """

    def get_parent_population(self, study: Study, generation: int) -> list[FrozenTrial]:
        """The parents of a generation, by number."""
        return sorted(super().get_parent_population(study, generation), key=lambda t: t.number)
