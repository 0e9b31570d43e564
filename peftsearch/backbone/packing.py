"""Formats of packed frozen weights, and their sizes. Plain data, no torch."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec

from peftsearch.errors import ConfigError, unknown_name

SCALE_BYTES = 4
"""Bytes of each number that bitsandbytes keeps in fp32: scales, offsets, entries of code books."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Packing:
    """A format in which bitsandbytes packs the weights of linear maps."""

    bits: int
    """Bits per weight."""
    block: int = 0
    """Number of weights that share a scale; 0 means one fp32 scale per output of a map."""
    nested: int = 0
    """Number of one-byte scales that share an fp32 scale: double quantisation (arXiv 2305.14314, sec. 3)."""
    n_beside: int = 0
    """Number of further fp32 values per map: code books, and the offset of the scales."""

    def n_bytes(self, d_in: int, d_out: int) -> int:
        """Bytes of a map's packed weights `(d_out, d_in)`."""
        n = d_in * d_out
        packed = -(-n * self.bits // 8) + SCALE_BYTES * self.n_beside
        if not self.block:
            return packed + SCALE_BYTES * d_out
        n_scales = -(-n // self.block)
        return packed + n_scales + SCALE_BYTES * -(-n_scales // self.nested)


PACKINGS = {"nf4": Packing(bits=4, block=64, nested=256, n_beside=16 + 256 + 1), "int8": Packing(bits=8)}
"""Quantisations by name, as `backbone.quantised` loads them; nf4's code books have 16 levels, and 256 for scales."""
PLAIN = "none"
"""Value of `--quantize` for a full-precision model where the run used a packed one."""


def check_quantisation(name: str | None) -> None:
    """Check that a quantisation exists and is installed; None means no quantisation.

    Raises:
        ConfigError: The quantisation is unknown, or bitsandbytes is not installed.
    """
    if name is None:
        return
    if name not in PACKINGS:
        raise ConfigError(unknown_name("quantisation", name, PACKINGS))
    if find_spec("bitsandbytes") is None:
        raise ConfigError(f"--quantize {name} needs bitsandbytes: pip install 'peftsearch[quant]'")
