"""Regularised evolution (Real et al. 2019, arXiv 1802.01548, algorithm 1), with the space's own neighbours.

The population is the newest `population_size` completed trials; age regularises it: the oldest member leaves, however
good it is. A tournament draws `tournament_size` members, and the best of them has a child: a random neighbour that fits
the budget, a few changes away. Until there are as many trials as a population has members, designs are drawn at random;
baselines in the space count, so they may be among the first parents.

Differences from the paper: the dimension that changes is drawn before its new choice, so that dimensions with many
choices do not change more often; with several objectives (or constraints), better means a lower rank of constrained
non-dominated sorting, with ties going to the member drawn first.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from peftsearch.design.space import Choice
from peftsearch.samplers.context import SamplerContext
from peftsearch.samplers.per_trial import PerTrialSampler, require_whole
from peftsearch.study.private_optuna import non_domination_ranks
from peftsearch.study.trials import excess_of


def make(
    context: SamplerContext, *, population_size: int = 10, tournament_size: int = 4, max_changes: int = 2
) -> BaseSampler:
    """Regularised evolution, seeded per trial.

    Args:
        context: The context to sample from.
        population_size: Number of newest completed trials that may have children.
        tournament_size: Number of members drawn for each child; the best of them is its parent.
        max_changes: Most elementary changes from parent to child; numbers from 1 to this are equally likely.
    """
    require_whole(2, population_size=population_size)
    require_whole(1, tournament_size=tournament_size, max_changes=max_changes)
    return PerTrialSampler(
        lambda seed: _Evolution(context, seed, population_size, tournament_size, max_changes), context, draws=50
    )


class _Evolution(BaseSampler):
    """Draw one child; `PerTrialSampler` shows it the trials that count."""

    def __init__(
        self, context: SamplerContext, seed: int, population_size: int, tournament_size: int, max_changes: int
    ) -> None:
        self._context = context
        self._rng = random.Random(seed)
        self._random = RandomSampler(seed=seed)
        self._population_size = population_size
        self._tournament_size = tournament_size
        self._max_changes = max_changes

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """All dimensions of the space."""
        return self._context.distributions

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """A child of the population; nothing while the population is incomplete."""
        trials = [t for t in study.get_trials(deepcopy=False) if t.number < trial.number]
        members = [t for t in trials if t.state == TrialState.COMPLETE][-self._population_size :]
        begun = [t for t in trials if t.state in (TrialState.COMPLETE, TrialState.RUNNING)]
        if len(begun) < self._population_size or len(members) < 2:
            return {}
        ranks = ranked(members, study.directions)
        drawn = self._rng.sample(range(len(members)), min(self._tournament_size, len(members)))
        parent = members[min(drawn, key=lambda i: ranks[i])]
        child: dict[str, Choice] = dict(parent.params)
        for _ in range(self._rng.randint(1, self._max_changes)):
            child = self._neighbour(child)
        return child

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """A random choice."""
        return self._random.sample_independent(study, trial, param_name, param_distribution)

    def _neighbour(self, params: dict[str, Choice]) -> dict[str, Choice]:
        """A random neighbour that fits, drawn first by the dimension that changes; the design itself if none fits."""
        space = self._context.space
        params = space.params(space.design(params)) or params
        changes: dict[str, list[dict[str, Choice]]] = {}
        for near in space.neighbours(params):
            changed = next((d.name for d in space.dimensions if near[d.name] != params[d.name]), "")
            changes.setdefault(changed, []).append(near)
        dimensions = list(changes)
        self._rng.shuffle(dimensions)
        for dimension in dimensions:
            self._rng.shuffle(changes[dimension])
            for near in changes[dimension]:
                if self._context.feasible(space.design(near)):
                    return near
        return params


def ranked(trials: list[FrozenTrial], directions: list[StudyDirection]) -> list[int]:
    """The rank of each completed trial, 0 for the best, by constrained non-dominated sorting (by value for one)."""
    signs = np.array([-1.0 if d == StudyDirection.MAXIMIZE else 1.0 for d in directions])
    penalties = np.array([excess_of(t) for t in trials])
    losses = np.array([t.values for t in trials]) * signs
    return non_domination_ranks(losses, penalties)
