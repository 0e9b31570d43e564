"""What every sampler is made from, and what it leaves in a trial."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from peftsearch.backbone.anatomy import Backbone
from peftsearch.design.budget import Budget
from peftsearch.design.design import Design
from peftsearch.design.space import DesignSpace

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplerContext:
    """What a sampler chooses from."""

    space: DesignSpace
    n_trials: int
    """Trained designs that the search may spend."""
    seed: int
    feasible: Callable[[Design], bool]
    """Whether a design fits the backbone and the budget."""
    identity: Callable[[Design], Hashable] = lambda design: design.key
    """What a design amounts to: designs of equal identity train the same architecture."""
    backbone: Backbone | None = None
    """The anatomy that designs are fitted to, for samplers that look at architectures."""
    budget: Budget | None = None
    """What designs may spend, for samplers that look at architectures."""
    sensitivity: Callable[[], Mapping[tuple[str, int, str], float]] | None = None
    """Measure a score for every stack, block and method (`engine.saliency`) in a few training steps."""

    @property
    def distributions(self) -> dict[str, BaseDistribution]:
        """The space as Optuna sees it: one categorical parameter a dimension."""
        from optuna.distributions import CategoricalDistribution  # an option is checked without Optuna

        return {d.name: CategoricalDistribution(d.choices) for d in self.space.dimensions}


@dataclass(frozen=True, kw_only=True, slots=True)
class StagePlan:
    """One stage of a search, as the plan shows it."""

    name: str
    n_choices: int
    """Choices that the stage has."""
    compared: int
    """Choices that it will try."""
    repeats: int
    """Trials of each of them."""

    @property
    def n_trials(self) -> int:
        """Trials of the stage."""
        return self.compared * self.repeats
