"""Tree-structured Parzen estimator (Bergstra et al., NeurIPS 2011), as Optuna implements it."""

from __future__ import annotations

import warnings

from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, TPESampler

from peftsearch.samplers.context import SamplerContext
from peftsearch.samplers.per_trial import PerTrialSampler, require_whole


def make(
    context: SamplerContext, *, n_startup_trials: int = 10, n_ei_candidates: int = 24, multivariate: bool = True
) -> BaseSampler:
    """Optuna's TPE sampler, seeded per trial.

    Args:
        context: The context to sample from.
        n_startup_trials: Random trials before the model is used, including baselines in the space.
        n_ei_candidates: Number of candidates drawn for each suggestion.
        multivariate: Whether dimensions are modelled jointly.
    """
    require_whole(1, n_startup_trials=n_startup_trials, n_ei_candidates=n_ei_candidates)

    def sampler(seed: int) -> BaseSampler:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)  # multivariate TPE is marked experimental since 2.2
            return TPESampler(
                seed=seed,
                n_startup_trials=n_startup_trials,
                n_ei_candidates=n_ei_candidates,
                multivariate=multivariate,
            )

    return PerTrialSampler(sampler, context, draws=10, jointly=multivariate)
