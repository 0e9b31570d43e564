"""Architectures: designs made concrete on one backbone under one budget. Plain data, no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from peftsearch.errors import MALFORMED, ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class Placement:
    """One method of one size on one block."""

    stack: str
    """Stack of the block: `encoder` or `decoder`."""
    block: int
    """Position of the block in its stack, from 0."""
    method: str
    size: int
    """The method's size knob: rank, width, length or index of a named subset, from 1."""
    n_params: int
    """Trainable parameters of this placement, with those that it shares if it is the first of its group."""
    group: int = 0
    """Blocks of one stack with the same number share what a method shares per group; 0 for other methods."""

    @property
    def key(self) -> str:
        """Name of the injected module: `encoder_3_lora`."""
        return f"{self.stack}_{self.block}_{self.method}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Architecture:
    """A design made concrete: exact sizes for each block. Without placements only the head, if any, is trained."""

    placements: tuple[Placement, ...]

    @property
    def n_params(self) -> int:
        """Trainable parameters, excluding the task head."""
        return sum(placement.n_params for placement in self.placements)

    def to_dict(self) -> dict[str, Any]:
        """The architecture as YAML holds it: a list of blocks, each with its methods and sizes."""
        blocks: dict[tuple[str, int], dict[str, Any]] = {}
        for p in self.placements:
            entry = blocks.setdefault((p.stack, p.block), {"stack": p.stack, "block": p.block, "methods": {}})
            group = {"group": p.group} if p.group else {}
            entry["methods"][p.method] = {"size": p.size, "n_params": p.n_params, **group}
        return {"n_params": self.n_params, "blocks": list(blocks.values())}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Architecture:
        """Read the mapping that `to_dict` wrote.

        Raises:
            ConfigError: The mapping is not of that form, or its sum differs from its `n_params`.
        """
        try:
            placements = tuple(
                Placement(
                    stack=str(entry["stack"]),
                    block=int(entry["block"]),
                    method=str(method),
                    size=int(facts["size"]),
                    n_params=int(facts["n_params"]),
                    group=int(facts.get("group", 0)),
                )
                for entry in data["blocks"]
                for method, facts in entry["methods"].items()
            )
            stated = int(data["n_params"])
        except MALFORMED as error:
            raise ConfigError(f"architecture: {type(error).__name__}: {error}") from error
        architecture = cls(placements=placements)
        if architecture.n_params != stated:
            raise ConfigError(f"architecture: n_params says {stated}, its blocks sum to {architecture.n_params}")
        return architecture
