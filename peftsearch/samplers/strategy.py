"""Strategies: a sampler with its settings, a pruner, and the fidelities, read from a YAML in `strategies/`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from peftsearch.catalog import load_entry
from peftsearch.errors import ConfigError
from peftsearch.fields import Fields, above, at_least, one_of

PRUNERS = ("none", "median", "asha", "hyperband")


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchFidelity:
    """Length of a trial of the search."""

    steps: int = 50
    """Optimizer steps per trial."""
    evaluations: int = 1
    """Validations per trial, evenly spread, the last at its end; the pruner acts on them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ConfirmFidelity:
    """Length and breadth of the confirmation of the best designs."""

    steps: int = 100
    """Optimizer steps per training, the full fidelity."""
    seeds: int = 4
    """Trainings per confirmed design, with seeds that the search did not use."""
    best: int = 2
    """Number of designs of the search to confirm."""
    baselines: int = 1
    """Number of best baselines to confirm with them."""


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
    trials: int = 16
    """Number of designs that the search trains, excluding baselines and confirmation."""
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
            trials=trials,
            search=search,
            confirm=confirm,
        )


def _fidelities(name: str, data: Mapping[str, Any]) -> tuple[SearchFidelity, ConfirmFidelity]:
    fields = Fields(f"strategy {name}: fidelities", data)
    search = Fields(f"strategy {name}: fidelities: search", fields.take("search", dict, {}))
    confirm = Fields(f"strategy {name}: fidelities: confirm", fields.take("confirm", dict, {}))
    fields.finish()
    of_search = SearchFidelity(
        steps=search.take("steps", int, SearchFidelity().steps, above(0)),
        evaluations=search.take("evaluations", int, 1, above(0)),
    )
    of_confirm = ConfirmFidelity(
        steps=confirm.take("steps", int, ConfirmFidelity().steps, above(0)),
        seeds=confirm.take("seeds", int, ConfirmFidelity().seeds, above(0)),
        best=confirm.take("best", int, ConfirmFidelity().best, above(0)),
        baselines=confirm.take("baselines", int, ConfirmFidelity().baselines, above(0)),
    )
    search.finish()
    confirm.finish()
    return of_search, of_confirm


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
