"""Warm starts: given designs first, then what another sampler proposes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from optuna.samplers import BaseSampler
from optuna.study import Study

from peftsearch.design.space import Choice
from peftsearch.samplers import evolution, random, tpe
from peftsearch.samplers.context import SamplerContext
from peftsearch.samplers.per_trial import PerTrialSampler

_AFTER: dict[str, Callable[[SamplerContext], BaseSampler]] = {
    "evolution": evolution.make,
    "tpe": tpe.make,
    "random": random.make,
}


def warm_started(
    context: SamplerContext, first: Callable[[Study], Iterable[Mapping[str, Choice]]], then: str
) -> BaseSampler:
    """A sampler that proposes the given designs that were not tried yet before its own.

    Args:
        context: The context to sample from.
        first: Function that gives the designs to try first, as points of the space, from the stored study.
        then: The sampler: `evolution`, `tpe` or `random`.

    Raises:
        ValueError: There is no such sampler.
    """
    if then not in _AFTER:
        raise ValueError(f"then must be one of {', '.join(_AFTER)}, got {then!r}")
    sampler = _AFTER[then](context)
    assert isinstance(sampler, PerTrialSampler)
    sampler.first = first
    return sampler
