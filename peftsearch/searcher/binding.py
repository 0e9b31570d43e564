"""Restrict a space and its designs to what the model, the budget and the user's wish allow."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from peftsearch.backbone.anatomy import Backbone
from peftsearch.design.baselines import Baseline, baselines_of, usable_methods
from peftsearch.design.budget import Budget
from peftsearch.design.design import Design
from peftsearch.design.feasibility import feasibility
from peftsearch.design.fitting import fit
from peftsearch.design.memory import MemoryLimit
from peftsearch.design.references import parse_references, require_blocks
from peftsearch.design.space import DesignSpace, SearchSpace
from peftsearch.errors import BudgetError, ConfigError, MethodError
from peftsearch.exporter.formats import deploys, takes_part
from peftsearch.methods.support import require_methods
from peftsearch.searcher.options import RunOptions

BUDGET_SHARES = (0.125, 0.25, 0.5, 1.0)
"""Shares of the budget that designs may spend in a search for several objectives: a front needs cheaper designs."""


def check_model(options: RunOptions, space: DesignSpace, n_objectives: int) -> None:
    """Refuse a space or reference that the model does not support, before data and weights are loaded.

    Raises:
        PeftSearchError: It does not.
    """
    from peftsearch.backbone.outline import preview

    backbone = preview(options.model)
    if backbone is not None:
        bound_space(space, backbone, n_objectives, options.search.deploy)
        for name in parse_references(options.baselines):
            require_blocks(name, backbone)


def bound_space(space: DesignSpace, backbone: Backbone, n_objectives: int, deploy: str) -> DesignSpace:
    """Bind a space to a model, and add shares of the budget if there are several objectives.

    Args:
        space: The space.
        backbone: The model's anatomy.
        n_objectives: Number of objectives.
        deploy: What a design must export to: any, peft or merged.

    Raises:
        PeftSearchError: No method of the space is left.
    """
    named = getattr(space, "methods", ())
    usable = usable_methods(backbone, named)
    if not set(named) & set(usable):
        require_methods(named, backbone)
    if deploy != "any":
        usable = tuple(name for name in usable if takes_part(deploy, name))
        if named and not set(named) & set(usable):
            raise ConfigError(f"--deploy {deploy}: no method of space {space.name} can be; give another --space")
    bound = space.bound_to(len(backbone.blocks), usable)
    if n_objectives > 1 and isinstance(bound, SearchSpace):
        return bound.with_budget_shares(BUDGET_SHARES)
    return bound


def feasible_designs(
    backbone: Backbone, budget: Budget, memory: MemoryLimit | None, deploy: str
) -> Callable[[Design], bool]:
    """A cached check that a design fits, and can be deployed as the user wants."""
    fits = feasibility(backbone, budget, memory)
    if deploy == "any":
        return fits

    @lru_cache(maxsize=100_000)
    def feasible(design: Design) -> bool:
        return fits(design) and _may_deploy(design, deploy, backbone, budget)

    return feasible


def deployable_baselines(space: DesignSpace, backbone: Backbone, budget: Budget, deploy: str) -> tuple[Baseline, ...]:
    """What an expert would try, as far as it can be deployed as the user wants."""
    return tuple(b for b in baselines_of(space, backbone) if _may_deploy(b.design, deploy, backbone, budget))


def _may_deploy(design: Design, deploy: str, backbone: Backbone, budget: Budget) -> bool:
    """Whether a design can be deployed as the user wants; one that does not fit is refused for that, elsewhere."""
    try:
        return deploy == "any" or deploys(deploy, fit(design, backbone, budget))
    except (BudgetError, MethodError):
        return True
