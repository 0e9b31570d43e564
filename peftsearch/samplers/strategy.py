"""Strategies: a sampler with its settings, a pruner, and the fidelities, read from a YAML in `strategies/`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from math import ceil
from typing import Any

from peftsearch.catalog import load_entry
from peftsearch.errors import ConfigError
from peftsearch.fields import Fields, above, at_least, list_of, one_of

LEFT_AFTER_CUT = 3
"""Designs that go on after the cut of a confirmation: the best, the best baseline and the cheapest."""
PRUNERS = ("none", "median", "asha", "hyperband")


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchFidelity:
    """Length of the trials of the search."""

    rungs: tuple[float, ...] = (0.3,)
    """Shares of the full schedule at which trials pause, ascending, each above 0 and at most 1."""
    keep: int = 3
    """One trial in `keep` goes on from each rung to the next, and from the last to further seeds."""
    seeds: int = 1
    """Seeds of the trials that are best at the last rung; the others have one."""
    rates: tuple[float, ...] = (0.4, 2.5)
    """Factors on the learning rate that the best designs and baselines are tried with, besides 1."""
    evaluations: int = 1
    """Validations up to the first rung, evenly spread, the last at the rung; the pruner acts on them."""

    def n_kept(self, n: int, least: int) -> int:
        """How many of n trainings go on from a rung: one in `keep`, but at least `least` where there are as many."""
        return min(n, max(least, ceil(n / self.keep)))


@dataclass(frozen=True, kw_only=True, slots=True)
class ConfirmFidelity:
    """Breadth of the confirmation of the best designs, whose trainings all have the full schedule."""

    looks: tuple[int, ...] = (5, 10, 20)
    """Numbers of seeds after which the confirmation ends if the answer is clear, ascending; the last always ends it."""
    best: int = 2
    """Number of designs of the search to confirm."""
    baselines: int = 2
    """Number of best baselines to confirm with them."""
    cheap: int = 1
    """Number of designs with far fewer parameters to confirm with them."""
    cut: int = 2
    """Number of seeds after which only the best design, the best baseline and the cheapest go on; 0 keeps all."""

    @property
    def seeds(self) -> int:
        """Most trainings per confirmed design, with seeds that the search did not use."""
        return self.looks[-1]

    @property
    def n_arms(self) -> int:
        """Number of designs to confirm, baselines included."""
        return self.best + self.baselines + self.cheap

    @property
    def cuts(self) -> bool:
        """Whether some designs are left out before the first look."""
        return 0 < self.cut < self.looks[0]

    def n_trainings(self, n_arms: int) -> int:
        """Trainings of `n_arms` designs up to the first look."""
        cut = self.cut if self.cuts else self.looks[0]
        return n_arms * cut + min(n_arms, LEFT_AFTER_CUT) * (self.looks[0] - cut)


@dataclass(frozen=True, kw_only=True, slots=True)
class Strategy:
    """Sampler, pruner and fidelities of a search."""

    name: str
    description: str = ""
    """One line for `peftsearch list strategies`."""
    sampler: str = "s4"
    """Name in the table of `peftsearch.samplers`, or `package.module:Object`."""
    sampler_settings: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments of the sampler."""
    pruner: str = "none"
    """One of `PRUNERS`, described in `peftsearch.samplers.pruners`."""
    pruner_settings: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments of the pruner."""
    headroom: bool = False
    """Whether to find out how much the budget limits the score, with full fine-tuning where it is affordable."""
    trials: int = 16
    """Number of designs that the search trains, excluding baselines and confirmation."""
    patience: int | None = None
    """Trials without a better one after which the search ends; None trains all of them."""
    search: SearchFidelity = SearchFidelity()
    confirm: ConfirmFidelity = ConfirmFidelity()

    @classmethod
    def from_dict(cls, name: str, data: Mapping[str, Any]) -> Strategy:
        """Read a strategy.

        Raises:
            ConfigError: The mapping has faults; lists all of them.
        """
        fields = Fields(f"strategy {name}", data)
        description = fields.take("description", str, "")
        trials = fields.take("trials", int, 16, at_least(1))
        patience = fields.take("patience", int, None, at_least(1))
        looks_for_headroom = fields.take("headroom", bool, False)
        sampler = dict(fields.take("sampler", dict) or {})
        pruner = dict(fields.take("pruner", dict, {"name": "none"}))
        fidelities = fields.take("fidelities", dict, {})
        if sampler and not isinstance(sampler.get("name"), str):
            fields.fault("'sampler' needs a 'name'")
        if fault := one_of(PRUNERS)(pruner.get("name")):
            fields.fault(f"'pruner': 'name' {fault}")
        fields.finish()
        search, confirm = _fidelities(name, fidelities)
        return cls(
            name=name,
            description=description,
            sampler=sampler.pop("name"),
            sampler_settings=sampler,
            pruner=pruner.pop("name"),
            pruner_settings=pruner,
            headroom=looks_for_headroom,
            trials=trials,
            patience=patience,
            search=search,
            confirm=confirm,
        )


def _fidelities(name: str, data: Mapping[str, Any]) -> tuple[SearchFidelity, ConfirmFidelity]:
    fields = Fields(f"strategy {name}: fidelities", data)
    search = Fields(f"strategy {name}: fidelities: search", fields.take("search", dict, {}))
    confirm = Fields(f"strategy {name}: fidelities: confirm", fields.take("confirm", dict, {}))
    fields.finish()
    of_search = SearchFidelity(
        rungs=tuple(map(float, search.take("rungs", list, list(SearchFidelity().rungs), _rungs))),
        rates=tuple(map(float, search.take("rates", list, list(SearchFidelity().rates), _rates))),
        keep=search.take("keep", int, SearchFidelity().keep, at_least(2)),
        seeds=search.take("seeds", int, SearchFidelity().seeds, at_least(1)),
        evaluations=search.take("evaluations", int, 1, above(0)),
    )
    of_confirm = ConfirmFidelity(
        looks=tuple(confirm.take("looks", list, list(ConfirmFidelity().looks), _looks)),
        best=confirm.take("best", int, ConfirmFidelity().best, above(0)),
        baselines=confirm.take("baselines", int, ConfirmFidelity().baselines, above(0)),
        cheap=confirm.take("cheap", int, ConfirmFidelity().cheap, at_least(0)),
        cut=confirm.take("cut", int, ConfirmFidelity().cut, at_least(0)),
    )
    search.finish()
    confirm.finish()
    return of_search, of_confirm


def _rungs(values: list[Any]) -> str | None:
    """A check that rungs are ascending shares of a schedule."""
    if fault := list_of(float, above(0))(values):
        return fault
    ascending = all(a < b for a, b in pairwise(values))
    return None if ascending and values[-1] <= 1 else f"must be ascending shares up to 1, got {values}"


def _rates(values: list[Any]) -> str | None:
    """A check that factors are numbers above 0, none of them 1."""
    if not values:
        return None
    return list_of(float, above(0))(values) or ("must not hold 1, which is always tried" if 1 in values else None)


def _looks(values: list[Any]) -> str | None:
    """A check that looks are ascending numbers of seeds."""
    if fault := list_of(int, at_least(1))(values):
        return fault
    return None if all(a < b for a, b in pairwise(values)) else f"must be ascending, got {values}"


def load_strategy(name: str) -> Strategy:
    """Load a strategy by its shipped name, YAML path, or `package.module:Object` (a `Strategy`).

    Raises:
        ConfigError: The strategy does not exist or is malformed.
    """
    found, entry = load_entry("strategies", "strategy", name)
    if isinstance(entry, Mapping):
        return Strategy.from_dict(found, entry)
    if not isinstance(entry, Strategy):
        raise ConfigError(f"strategy {name}: expected a peftsearch Strategy, got {type(entry).__name__}")
    return entry
