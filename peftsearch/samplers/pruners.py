"""Pruners, which stop a trial early by the scores that it reports along the way.

They decide from the trials that count: baselines and trials that a killed process left behind are hidden from them, so
that a resumed search stops the same trials as an uninterrupted one. They act in studies with one objective.

- `none`: never stops a trial.
- `median`: Optuna's; stops a trial whose best score is below the median of the completed trials at its step.
- `asha`: asynchronous successive halving (Li et al., arXiv 1810.05934, algorithm 2, in the form of Optuna's
  `SuccessiveHalvingPruner`, where a trial continues at once or never).
- `hyperband`: several brackets of successive halving side by side, each starting later than the one before (Li et al.,
  arXiv 1603.06560). A trial's bracket follows from its place among the trials that count. Optuna's `HyperbandPruner`
  hashes the trial's number instead, which a rerun trial does not keep, and shows the sampler only the trial's own
  bracket.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import ceil

from optuna.pruners import BasePruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.study import Study
from optuna.trial import FrozenTrial

from peftsearch.errors import ConfigError, one_line
from peftsearch.samplers.strategy import Strategy
from peftsearch.study.private_optuna import StudyView
from peftsearch.study.trials import counts, place_of


def make_pruner(strategy: Strategy, steps: int) -> BasePruner:
    """Make the pruner of a strategy.

    Args:
        strategy: The strategy.
        steps: Optimizer steps up to the first rung.

    Raises:
        ConfigError: The settings do not suit the pruner.
    """
    kinds: dict[str, Callable[..., BasePruner]] = {
        "none": NopPruner,
        "median": MedianPruner,
        "asha": partial(asha, steps),
        "hyperband": partial(hyperband, steps),
    }
    try:
        return CountedPruner(kinds[strategy.pruner](**strategy.pruner_settings))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"strategy {strategy.name}: pruner {strategy.pruner}: {one_line(error)}") from error


def asha(steps: int, *, min_share: float = 0.25, reduction_factor: int = 2) -> BasePruner:
    """Asynchronous successive halving.

    Args:
        steps: Optimizer steps of a whole trial.
        min_share: Share of the steps before the first rung; each further rung is `reduction_factor` times later.
        reduction_factor: One trial in `reduction_factor` continues from a rung.

    Raises:
        ValueError: A setting is out of range.
    """
    return SuccessiveHalvingPruner(min_resource=_first_rung(steps, min_share), reduction_factor=reduction_factor)


def hyperband(steps: int, *, min_share: float = 0.25, reduction_factor: int = 2) -> BasePruner:
    """Brackets of successive halving, with the settings of `asha`.

    Raises:
        ValueError: A setting is out of range.
    """
    return Hyperband(_first_rung(steps, min_share), steps, reduction_factor)


class CountedPruner(BasePruner):
    """A pruner that sees only the trials that count.

    Args:
        pruner: The pruner that decides.
    """

    def __init__(self, pruner: BasePruner) -> None:
        self._pruner = pruner

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Whether to stop the trial; baselines run to their end."""
        return counts(trial) and self._pruner.prune(StudyView(study, counts), trial)


class Hyperband(BasePruner):
    """Brackets of successive halving (arXiv 1603.06560, algorithm 1); bracket i starts at r eta^i steps.

    As in the paper, bracket i of n gets ceil(n eta^s / (s + 1)) trials in each round, s = n - 1 - i. A round's
    trials are spread evenly, so that a short search has trials of every bracket.

    Args:
        min_resource: Steps r before the first rung of bracket 0.
        max_resource: Steps of a whole trial.
        reduction_factor: eta.
    """

    def __init__(self, min_resource: int, max_resource: int, reduction_factor: int) -> None:
        first = SuccessiveHalvingPruner(min_resource=min_resource, reduction_factor=reduction_factor)
        self._brackets = [first]
        while min_resource * reduction_factor ** len(self._brackets) <= max_resource:
            self._brackets.append(
                SuccessiveHalvingPruner(
                    min_resource=min_resource,
                    reduction_factor=reduction_factor,
                    min_early_stopping_rate=len(self._brackets),
                )
            )
        n = len(self._brackets)
        self._round = _spread([ceil(n * reduction_factor**s / (s + 1)) for s in reversed(range(n))])

    def bracket(self, place: int) -> int:
        """The bracket of a trial, by its place among those that count, from 1."""
        return self._round[(place - 1) % len(self._round)]

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Whether to stop the trial, compared with the other trials of its bracket."""
        trials = enumerate(study.get_trials(deepcopy=False), 1)
        brackets = {t.number: self.bracket(place_of(t) or i) for i, t in trials}
        own = brackets[trial.number]
        return self._brackets[own].prune(StudyView(study, lambda t: brackets.get(t.number) == own), trial)


def _first_rung(steps: int, min_share: float) -> int:
    if not 0 < min_share <= 1:
        raise ValueError(f"min_share must be above 0 and at most 1, got {min_share!r}")
    return max(1, int(steps * min_share))


def _spread(amounts: list[int]) -> list[int]:
    """Indices in an order in which each occurs as often as its amount says, evenly spaced."""
    order: list[int] = []
    for n in range(1, sum(amounts) + 1):
        lacks = [amount * n / sum(amounts) - order.count(i) for i, amount in enumerate(amounts)]
        order.append(lacks.index(max(lacks)))
    return order
