"""The context that every sampler is made from, and the stages of its plan."""

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
    """The space, the limits and the facts that a sampler chooses by."""

    space: DesignSpace
    n_trials: int
    """Number of designs that the search may train."""
    seed: int
    feasible: Callable[[Design], bool]
    """Whether a design fits the backbone and the budget."""
    identity: Callable[[Design], Hashable] = lambda design: design.key
    """Identity of a design: designs with equal identities train the same architecture."""
    backbone: Backbone | None = None
    """The anatomy that designs are fitted to, for samplers that look at architectures."""
    budget: Budget | None = None
    """The budget of a design, for samplers that look at architectures."""
    sensitivity: Callable[[], Mapping[tuple[str, int, str], float]] | None = None
    """Function that scores every stack, block and method (`engine.saliency`) by the gradients of a few batches."""

    @property
    def distributions(self) -> dict[str, BaseDistribution]:
        """The space as Optuna sees it: one categorical parameter per dimension."""
        from optuna.distributions import CategoricalDistribution  # options are checked without importing Optuna

        return {d.name: CategoricalDistribution(d.choices) for d in self.space.dimensions}


@dataclass(frozen=True, kw_only=True, slots=True)
class StagePlan:
    """One stage of a search, as the plan shows it."""

    name: str
    n_choices: int
    """Number of choices of the stage."""
    compared: int
    """Number of choices that the stage will try."""
    repeats: int
    """Number of trials of each tried choice."""

    @property
    def n_trials(self) -> int:
        """Number of trials of the stage."""
        return self.compared * self.repeats
