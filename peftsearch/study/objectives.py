"""The objectives and the limits of a search: names, directions, units, and how options spell them.

Everything here works on a trial's `measures` (defined in `peftsearch.engine.measure`) and needs no torch.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from peftsearch.errors import ConfigError, one_line, unknown_name
from peftsearch.units import _DECIMAL, show_bytes, show_flops, show_seconds

SCORE = "score"
"""The objective that every search has."""
_BINARY = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_UNITS = {unit.lower(): factor for unit, factor in (_DECIMAL | _BINARY).items()}
_NUMBER = re.compile(r"(\d{1,15}(?:\.\d{1,15})?)\s*([a-z%]*)", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True, kw_only=True, slots=True)
class Objective:
    """One quantity that a search can optimise."""

    name: str
    """Name in options: `memory`."""
    measure: str
    """Key in a trial's measures: `peak_memory_bytes`; for the score, which is not a measure, `score`."""
    direction: Literal["maximize", "minimize"]
    """Direction, in Optuna's spelling."""
    unit: str
    """Unit of the value; empty for pure numbers."""
    description: str
    """Description in one line."""
    label: str
    """Axis label in charts: `inference latency`."""
    chart_unit: str = ""
    """Unit in charts; empty for pure numbers."""
    chart_scale: float = 1.0
    """Values of the measure per chart unit."""
    log: bool = False
    """Whether charts, the knee and the hypervolume use a logarithmic scale."""
    show: Callable[[float], str]
    """Function that formats a value with its unit."""


def _cost(
    name: str,
    measure: str,
    unit: str,
    description: str,
    show: Callable[[float], str],
    label: str,
    chart_unit: str = "",
    chart_scale: float = 1.0,
    log: bool = False,
) -> Objective:
    return Objective(
        name=name,
        measure=measure,
        direction="minimize",
        unit=unit,
        description=description,
        show=show,
        label=label,
        chart_unit=chart_unit,
        chart_scale=chart_scale,
        log=log,
    )


_COUNT = "{:,.0f}".format
OBJECTIVES: dict[str, Objective] = {
    objective.name: objective
    for objective in (
        Objective(
            name=SCORE,
            measure=SCORE,
            direction="maximize",
            unit="",
            description="the task's metric on the validation split",
            show="{:.4f}".format,
            label="score",
        ),
        _cost(
            "params", "params", "", "trainable parameters, excluding the task head", _COUNT,
            "trainable parameters", log=True,
        ),
        _cost(
            "changed", "changed_params", "", "parameters that differ from the model's, or are new", _COUNT,
            "changed parameters", log=True,
        ),
        _cost(
            "train_flops", "train_flops", "FLOP", "a training step of the reference batch", show_flops,
            "FLOPs of a training step", "GFLOP", 1e9,
        ),
        _cost(
            "inference_flops", "inference_flops", "FLOP", "a forward pass of the reference batch", show_flops,
            "FLOPs of inference", "GFLOP", 1e9,
        ),
        _cost(
            "disk", "disk_bytes", "B", "file of the trained parameters, excluding the task head", show_bytes,
            "tuned part on disk", "kB", 1e3, log=True,
        ),
        _cost("step_time", "step_s", "s", "a training step, median", show_seconds, "training step", "ms", 1e-3),
        _cost(
            "memory", "peak_memory_bytes", "B", "peak memory of a training step of the reference batch", show_bytes,
            "peak memory in training", "MB", 1e6,
        ),
        _cost(
            "latency", "latency_s", "s", "a forward pass of one example, nothing merged", show_seconds,
            "inference latency", "ms", 1e-3,
        ),
        _cost(
            "merged_latency", "merged_latency_s", "s", "a forward pass of one example, LoRA and biases merged",
            show_seconds, "latency, merged", "ms", 1e-3,
        ),
    )
}  # fmt: skip
"""All objectives by name."""
MEASURES = (*(o.measure for o in OBJECTIVES.values() if o.name != SCORE), "backbone_latency_s")
"""The keys of a trial's measures."""


def parse_objectives(text: str) -> tuple[Objective, ...]:
    """Read the objectives of a search: `score`, `score,params`.

    Raises:
        ConfigError: A name is unknown, empty or repeated, or `score` is missing.
    """
    names = [name.strip() for name in text.split(",")]
    given = one_line(text, 80)
    for name in names:
        if not name:
            raise ConfigError(f"--objective {given!r} contains an empty name; write it as in score,params")
        if name not in OBJECTIVES:
            raise ConfigError(f"--objective {given!r}: {unknown_name('objective', name, OBJECTIVES)}")
    doubled = next((name for name in names if names.count(name) > 1), None)
    if doubled is not None:
        raise ConfigError(f"--objective {given!r} names {doubled!r} twice; name each objective once")
    if SCORE not in names:
        raise ConfigError(f"--objective {given!r} lacks the score, which every search needs: --objective score,{given}")
    return tuple(OBJECTIVES[name] for name in names)


def values_of(value: float, measures: Mapping[str, float], objectives: Sequence[Objective]) -> list[float]:
    """A trial's values in the order of the objectives."""
    known = {**measures, SCORE: value}
    return [float(known[objective.measure]) for objective in objectives]


def parse_memory(text: str) -> int:
    """Read an amount of memory: `8GB` (10^9), `512MiB` (2^20); case is ignored.

    Returns:
        Bytes, rounded down.

    Raises:
        ConfigError: The text is not an amount, or is less than a byte.
    """
    given, forms = one_line(text, 60), "write a number and a unit such as 8GB or 512MiB"
    match = _NUMBER.fullmatch(text.strip())
    if match is None:
        raise ConfigError(f"--max-memory {given!r} is not an amount of memory: {forms}")
    unit = match[2].lower()
    if unit not in _UNITS:
        fault = f"unknown unit {match[2]!r}" if unit else "the unit is missing"
        raise ConfigError(f"--max-memory {given!r}: {fault}; {forms} (known: {', '.join(_DECIMAL | _BINARY)})")
    n_bytes = int(Decimal(match[1]) * _UNITS[unit])
    if n_bytes < 1:
        raise ConfigError(f"--max-memory {given!r} must be at least one byte; {forms}")
    return n_bytes


def parse_overhead(text: str) -> float:
    """Read an overhead over the backbone: `10%` is 0.1, `0%` allows no overhead.

    Raises:
        ConfigError: The text is not a percentage of at least 0.
    """
    given, forms = one_line(text, 60), "write a percentage such as 10%"
    match = _NUMBER.fullmatch(text.strip())
    if match is None:
        raise ConfigError(f"--max-latency-overhead {given!r} is not an overhead: {forms}")
    if match[2] != "%":
        share = (Decimal(match[1]) * 100).normalize()
        hint = "" if match[2] else f"; did you mean {share:f}% or {match[1]}%?"
        raise ConfigError(f"--max-latency-overhead {given!r}: {forms}{hint}")
    return float(Decimal(match[1]) / 100)


@dataclass(frozen=True, kw_only=True, slots=True)
class Constraints:
    """Limits on a trial's measures."""

    max_memory_bytes: int | None = None
    """Highest peak memory of a training step of the reference batch; None for no limit."""
    max_latency_overhead: float | None = None
    """Highest latency overhead after merging, as a share of the backbone's latency (0.1 is 10%); None for no limit."""

    def violations(self, measures: Mapping[str, float]) -> list[str]:
        """Describe each exceeded limit in one text."""
        return [
            f"{what} {show(measured)} exceeds {show(limit)}{of}"
            for what, measured, limit, show, of in self._held(measures)
            if measured / limit > 1  # the same division as in `values`, so that both agree to the last bit
        ]

    def values(self, measures: Mapping[str, float]) -> dict[str, float]:
        """Measured / limit - 1 for each limit in force, by name: at most 0 if it is met, as Optuna defines it."""
        return {what: measured / limit - 1 for what, measured, limit, _, _ in self._held(measures)}

    def to_dict(self) -> dict[str, float]:
        """The limits in force, by field name."""
        limits = {"max_memory_bytes": self.max_memory_bytes, "max_latency_overhead": self.max_latency_overhead}
        return {name: limit for name, limit in limits.items() if limit is not None}

    def _held(self, measures: Mapping[str, float]) -> list[tuple[str, float, float, Callable[[float], str], str]]:
        """Name, measured value, limit, formatter and explanation of each limit in force."""
        held: list[tuple[str, float, float, Callable[[float], str], str]] = []
        if self.max_memory_bytes is not None:
            held.append(("peak memory", measures["peak_memory_bytes"], self.max_memory_bytes, show_bytes, ""))
        if self.max_latency_overhead is not None:
            backbone = measures["backbone_latency_s"]
            of = f" ({100 * self.max_latency_overhead:g}% over the backbone's {show_seconds(backbone)})"
            allowed = backbone * (1 + self.max_latency_overhead)
            held.append(("latency", measures["merged_latency_s"], allowed, show_seconds, of))
        return held


def parse_constraints(max_memory: str | None, max_latency_overhead: str | None) -> Constraints:
    """Read the limits in the form of the command line; None means no limit.

    Raises:
        ConfigError: A limit cannot be read.
    """
    return Constraints(
        max_memory_bytes=None if max_memory is None else parse_memory(max_memory),
        max_latency_overhead=None if max_latency_overhead is None else parse_overhead(max_latency_overhead),
    )
