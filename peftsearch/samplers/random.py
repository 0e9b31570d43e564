"""Random search: every dimension drawn uniformly (Bergstra and Bengio, 2012); the baseline of all samplers."""

from __future__ import annotations

from optuna.samplers import BaseSampler, RandomSampler

from peftsearch.samplers.context import SamplerContext
from peftsearch.samplers.per_trial import PerTrialSampler


def make(context: SamplerContext) -> BaseSampler:
    """Optuna's random sampler, seeded per trial."""
    return PerTrialSampler(lambda seed: RandomSampler(seed=seed), context, draws=200, jointly=False)
