"""The ways in which frozen weights are packed, and what they weigh. Plain data, no torch."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec

from peftsearch.errors import ConfigError, unknown_name

SCALE_BYTES = 4
"""Of what bitsandbytes keeps in fp32 beside packed weights: scales, offsets, entries of code books."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Packing:
    """How bitsandbytes packs the weights of linear maps."""

    bits: int
    """Of a weight."""
    block: int = 0
    """Weights that share a scale; 0 is a scale in fp32 for each output of a map."""
    nested: int = 0
    """Scales, a byte each, that share a scale in fp32 themselves: double quantisation (arXiv 2305.14314, sec. 3)."""
    n_beside: int = 0
    """Numbers in fp32 that every map has besides: code books, and the offset of the scales."""

    def n_bytes(self, d_in: int, d_out: int) -> int:
        """Bytes of the weights `(d_out, d_in)` of a map."""
        n = d_in * d_out
        packed = -(-n * self.bits // 8) + SCALE_BYTES * self.n_beside
        if not self.block:
            return packed + SCALE_BYTES * d_out
        n_scales = -(-n // self.block)
        return packed + n_scales + SCALE_BYTES * -(-n_scales // self.nested)


PACKINGS = {"nf4": Packing(bits=4, block=64, nested=256, n_beside=16 + 256 + 1), "int8": Packing(bits=8)}
"""Quantisations by name, as `backbone.quantised` loads them: nf4 has 16 levels, and 256 of its scales."""
PLAIN = "none"
"""What `--quantize` is given for a model of full precision where the run's was packed."""


def check_quantisation(name: str | None) -> None:
    """Check that a quantisation exists and that what computes it is installed; None is no quantisation.

    Raises:
        ConfigError: It is unknown, or the extra is missing.
    """
    if name is None:
        return
    if name not in PACKINGS:
        raise ConfigError(unknown_name("quantisation", name, PACKINGS))
    if find_spec("bitsandbytes") is None:
        raise ConfigError(f"--quantize {name} needs bitsandbytes: pip install 'peftsearch[quant]'")
