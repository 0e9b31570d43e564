"""KronA for HF peft: LoKr with both factors whole.

LoKr knows one `decompose_factor` for all maps and makes the shapes of the factors of it, the same divisor for rows and
columns where it divides both: of a square map A is square. Other shapes, several of them, slices of fused maps, and
maps that are no nn.Linear are refused. Its rank only says that B is whole; the scale is alpha over it.
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
    """Make HF peft's LoKr of what is injected.

    Raises:
        CheckpointError: LoKr has no such factors; the blocks in the way are named.
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
    """Rows or columns of A where LoKr splits a dimension between A and B.

    The arithmetic of `peft.tuners.lokr.layer.factorization`, which is not part of peft's interface; peft is its oracle
    in the tests.

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
    """The factor of which LoKr makes our shapes."""

    def fits(factor: int, pair: Kronecker) -> bool:
        dims = [rows * columns for rows, columns in zip(pair.a.shape, pair.b.shape, strict=True)]
        return [first_factor(dim, factor) for dim in dims] == list(pair.a.shape)

    widest = max(size for _, pair in pairs for size in pair.a.shape)
    best: int = max((*range(1, widest + 1), -1), key=lambda factor: sum(fits(factor, pair) for _, pair in pairs))
    told = "the one decompose_factor that its LoKr has for all maps gives no A of {} x {}"
    left = {placement_of(injection, pair): told.format(*pair.a.shape) for _, pair in pairs if not fits(best, pair)}
    if left:
        raise refusal("peft", injection.architecture, left)
    return best
