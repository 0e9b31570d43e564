"""Bayesian optimisation with a Gaussian process, as Optuna implements it (`optuna.samplers.GPSampler`).

A Matérn kernel over the Hamming distance of the choices, log expected improvement (hypervolume improvement for several
objectives), the next point by local search. Optuna starts each fit from the kernel parameters of the previous one; here
every fit starts from scratch, so that a resumed search continues like an uninterrupted one.
"""

from __future__ import annotations

from optuna.samplers import BaseSampler, GPSampler

from peftsearch.samplers.context import SamplerContext
from peftsearch.samplers.per_trial import PerTrialSampler, require_whole


def make(context: SamplerContext, *, n_startup_trials: int = 10) -> BaseSampler:
    """Optuna's GP sampler, seeded per trial, with one draw per trial, since a draw costs a fit.

    Args:
        context: The context to sample from.
        n_startup_trials: Completed trials before the model is used, including baselines in the space.
    """
    require_whole(1, n_startup_trials=n_startup_trials)
    return PerTrialSampler(
        lambda seed: GPSampler(seed=seed, n_startup_trials=n_startup_trials, warn_independent_sampling=False),
        context,
        draws=1,
    )
