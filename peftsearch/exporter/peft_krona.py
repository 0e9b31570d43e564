"""KronA for HF peft: LoKr with both factors as full matrices.

LoKr has one `decompose_factor` for all maps and derives the factors' shapes from it, with the same divisor for rows and
columns where it divides both: A of a square map is square. Refused are other shapes, several of them, slices of fused
maps, and maps that are not nn.Linear. The rank only tells LoKr not to decompose B; the scale is alpha / rank.
"""

from __future__ import annotations

from math import isqrt

import torch
from torch import nn

from peftsearch.design.architecture import Placement
from peftsearch.exporter.formats import refusal
from peftsearch.exporter.peft_adapter import PREFIX, PeftAdapter, hooks_of, placement_of
from peftsearch.injection.inject import Injection
from peftsearch.methods.layers.krona import Kronecker


def read_krona(injection: Injection) -> PeftAdapter:
    """Convert the injected KronA to HF peft's LoKr.

    Raises:
        CheckpointError: LoKr cannot have these factors; names the blocks.
    """
    model = injection.model
    pairs: list[tuple[str, Kronecker]] = list(hooks_of(model, Kronecker))
    _require_whole(injection, pairs)
    factor = _decompose_factor(injection, pairs)
    rank = max(max(pair.b.shape) for _, pair in pairs)
    tensors: dict[str, torch.Tensor] = {f"{PREFIX}{path}.lokr_w1": pair.a for path, pair in pairs}
    tensors |= {f"{PREFIX}{path}.lokr_w2": pair.b for path, pair in pairs}
    return PeftAdapter(
        config="LoKrConfig",
        options={
            "r": rank,
            "alpha": rank * pairs[0][1].scaling,
            "decompose_factor": factor,
            "target_modules": [path for path, _ in pairs],
        },
        tensors=tensors,
        told=f"LoKr on {len(pairs)} maps (decompose_factor {factor})",
    )


def _require_whole(injection: Injection, pairs: list[tuple[str, Kronecker]]) -> None:
    sliced: dict[Placement, str] = {
        placement_of(injection, pair): "its LoKr acts on whole nn.Linear maps, not on slices of fused ones"
        for path, pair in pairs
        if pair.margins is not None or not isinstance(injection.model.get_submodule(path), nn.Linear)
    }
    if sliced:
        raise refusal("peft", injection.architecture, sliced)


def first_factor(dimension: int, factor: int) -> int:
    """Number of rows or columns of A when LoKr splits a dimension between A and B.

    The arithmetic is that of `peft.tuners.lokr.layer.factorization`, which is not part of peft's interface; the tests
    compare with peft.

    Args:
        dimension: Rows or columns of the map.
        factor: LoKr's `decompose_factor`; -1 sets no limit.

    Returns:
        `factor` where it divides the dimension; else the largest divisor that exceeds neither the factor nor the
        dimension's square root.
    """
    if factor > 0 and dimension % factor == 0:
        return factor
    limit = isqrt(dimension) if factor == -1 else min(factor, isqrt(dimension))
    return max(divisor for divisor in range(1, limit + 1) if dimension % divisor == 0)


def _decompose_factor(injection: Injection, pairs: list[tuple[str, Kronecker]]) -> int:
    """The `decompose_factor` that gives our shapes in LoKr."""

    def fits(factor: int, pair: Kronecker) -> bool:
        dims = [rows * columns for rows, columns in zip(pair.a.shape, pair.b.shape, strict=True)]
        return [first_factor(dim, factor) for dim in dims] == list(pair.a.shape)

    widest = max(size for _, pair in pairs for size in pair.a.shape)
    best: int = max((*range(1, widest + 1), -1), key=lambda factor: sum(fits(factor, pair) for _, pair in pairs))
    told = "its LoKr has one decompose_factor for all maps, which does not give A of {} x {}"
    left = {placement_of(injection, pair): told.format(*pair.a.shape) for _, pair in pairs if not fits(best, pair)}
    if left:
        raise refusal("peft", injection.architecture, left)
    return best
