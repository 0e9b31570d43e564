"""Format quantities for people."""

from __future__ import annotations

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


def short_count(n: int) -> str:
    """Format a count in short form: `22.7k`, `1.8M`."""
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if n >= size:
            return f"{n / size:.1f}{unit}"
    return str(n)
