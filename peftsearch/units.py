"""Format quantities for people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from statistics import mean, stdev
from typing import Any

_DECIMAL = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


def show_bytes(value: float) -> str:
    """Format a size in bytes with a suitable decimal unit: `1.5 MB`."""
    unit = next((u for u in reversed(_DECIMAL) if value >= _DECIMAL[u]), "B")
    return f"{value / _DECIMAL[unit]:.3g} {unit}"


def show_flops(value: float) -> str:
    """Format a number of floating-point operations: `5.37 GFLOP`."""
    for prefix, factor in (("P", 10**15), ("T", 10**12), ("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if value >= factor:
            return f"{value / factor:.3g} {prefix}FLOP"
    return f"{value:.0f} FLOP"


def show_seconds(value: float) -> str:
    """Format a short time, given in seconds: `12.3 ms`."""
    return f"{1000 * value:.3g} ms"


def format_seconds(seconds: float) -> str:
    """Format a duration: `45 s`, `3 min 20 s`, `2 h 5 min`."""
    s = round(seconds)
    if s < 60:
        return f"{s} s"
    return f"{s // 60} min {s % 60} s" if s < 3600 else f"{s // 3600} h {s % 3600 // 60} min"


def plural(n: int, noun: str) -> str:
    """A count with its noun: `1 seed`, `3 seeds`."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def short_count(n: int) -> str:
    """Format a count in short form: `22.7k`, `1.8M`."""
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if n >= size:
            return f"{n / size:.1f}{unit}"
    return str(n)


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores of one design over seeds."""

    values: tuple[float, ...] = ()

    @property
    def mean(self) -> float:
        """Mean over seeds; minus infinity without values."""
        return mean(self.values) if self.values else -inf

    @property
    def std(self) -> float | None:
        """Standard deviation over seeds (n - 1); None below two."""
        return stdev(self.values) if len(self.values) > 1 else None

    @classmethod
    def from_dict(cls, data: Mapping[str, Any] | None) -> Scores:
        """Read what `to_dict` gave."""
        return cls(tuple(data["values"]) if data else ())

    def to_dict(self) -> dict[str, Any] | None:
        """Mean, standard deviation, n and the values, as files keep them; None without values."""
        if not self.values:
            return None
        return {"mean": self.mean, "std": self.std, "n": len(self.values), "values": list(self.values)}

    @property
    def short(self) -> str:
        """`0.9123 ± 0.0045`; empty without values."""
        return mean_and_spread(self.mean, self.std) if self.values else ""

    def __str__(self) -> str:
        """`0.9123 ± 0.0045 (n=3)`; empty without values."""
        return f"{self.short} (n={len(self.values)})" if self.values else ""


def mean_and_spread(mean: float, spread: float | None) -> str:
    """`0.9123 ± 0.0045`; without a spread the mean alone."""
    return f"{mean:.4f}" + ("" if spread is None else f" ± {spread:.4f}")
