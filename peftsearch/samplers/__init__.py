"""Samplers, which choose the next design from the history of a study.

Each is an Optuna sampler in one file. It decides from the stored trials and the seed alone, never from its own memory,
so that a resumed search continues like an uninterrupted one.

To add a sampler, write a file with a function `make(context, **settings)` that returns an Optuna sampler, and add a
line to the table; the contract test then covers it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftsearch.catalog import load_object
from peftsearch.errors import ConfigError, one_line, unknown_name
from peftsearch.samplers.context import SamplerContext, StagePlan

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

SAMPLERS = {
    "race": "peftsearch.samplers.race:make",
    "s4": "peftsearch.samplers.s4:make",
    "random": "peftsearch.samplers.random:make",
    "tpe": "peftsearch.samplers.tpe:make",
    "gp": "peftsearch.samplers.gp:make",
    "evolution": "peftsearch.samplers.evolution:make",
    "nsga2": "peftsearch.samplers.nsga2:make",
    "sensitivity": "peftsearch.samplers.sensitivity:make",
}
SINGLE_OBJECTIVE = frozenset({"s4", "sensitivity"})
"""Samplers that support a single objective only."""


def make_sampler(name: str, context: SamplerContext, settings: dict[str, Any]) -> BaseSampler:
    """Make the sampler of a strategy.

    Args:
        name: A name of the table, or `package.module:Object` for a callable of the same form.
        context: The context to sample from.
        settings: Keyword arguments of the sampler.

    Raises:
        ConfigError: The name is unknown or the settings do not suit the sampler.
    """
    if name not in SAMPLERS and ":" not in name:
        raise ConfigError(f"{unknown_name('sampler', name, SAMPLERS)}; or give package.module:Object")
    make = load_object(SAMPLERS.get(name, name))
    try:
        sampler: BaseSampler = make(context, **settings)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"sampler {name}: its settings do not suit it: {one_line(error)}") from error
    return sampler


def supports_objectives(name: str) -> bool:
    """Whether a sampler supports several objectives at once; a user's own sampler is assumed to."""
    return name not in SINGLE_OBJECTIVE


def require_objectives(strategy: str, sampler: str, n_objectives: int) -> None:
    """Check that a strategy supports the number of objectives.

    Raises:
        ConfigError: It does not; the message names the samplers that do.
    """
    if n_objectives > 1 and not supports_objectives(sampler):
        able = ", ".join(name for name in SAMPLERS if supports_objectives(name))
        raise ConfigError(
            f"strategy {strategy} searches for one objective and {n_objectives} are given; give one --objective, or a "
            f"--strategy with a sampler for several ({able})"
        )


def plan_of(sampler: BaseSampler, context: SamplerContext) -> tuple[StagePlan, ...]:
    """The comparisons that the sampler plans, before anything is trained; one stage for samplers without stages."""
    plan = getattr(sampler, "plan", None)
    if plan is not None:
        stages: tuple[StagePlan, ...] = plan()
        return stages
    return (StagePlan(name="search", n_choices=context.space.n_designs, compared=context.n_trials, repeats=1),)


__all__ = [
    "SAMPLERS",
    "SINGLE_OBJECTIVE",
    "SamplerContext",
    "StagePlan",
    "make_sampler",
    "plan_of",
    "require_objectives",
    "supports_objectives",
]
