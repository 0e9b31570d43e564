"""Arithmetic of fronts: non-dominated set, hypervolume, knee, and the cheapest point within one standard error.

Sorting and hypervolume come from moocore (Fonseca, López-Ibáñez, Paquete; the reference implementation of the field).
The knee is that of Das (1999, "On characterizing the 'knee' of the Pareto curve"), also used by kneedle (Satopää et
al., 2011): the point of the front farthest above the chord between its two ends, each coordinate normalised to the
front's own range. It does not depend on the units, but on whether a cost is linear or logarithmic, which callers
choose. The one-standard-error rule is that of Breiman et al. (1984), sec. 3.4.3.

Scores are maximised, costs are minimised. Not supported: knees of more than two objectives.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
import numpy.typing as npt

from peftsearch.errors import ReportError

Floats = npt.NDArray[np.float64]

_MARGIN = 0.1
"""Distance of the reference point beyond the worst values, as a share of the range: 1.1 in normalised objectives is
customary (Ishibuchi et al., 2018), so that the ends of a front count too."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Knee:
    """The point of a front beyond which further cost buys the least."""

    index: int
    """Position among the given points."""
    height: float
    """Distance above the chord in normalised coordinates, from 0 to 1/sqrt(2)."""


def require_moocore() -> None:
    """Check that moocore is installed.

    Raises:
        ReportError: moocore is not installed.
    """
    if find_spec("moocore") is None:
        raise ReportError("fronts need moocore, which is not installed: pip install 'peftsearch[report]'")


def nondominated(points: npt.ArrayLike, maximise: Sequence[bool]) -> npt.NDArray[np.bool_]:
    """Find the points that no other point dominates; equal points are kept or dropped together.

    Args:
        points: Objectives, `(n, k)`; finite.
        maximise: Direction of each of the k objectives.

    Returns:
        A mask, `(n,)`.
    """
    import moocore

    values = _checked(points, maximise)
    if not len(values):
        return np.zeros(0, dtype=bool)
    return np.asarray(moocore.is_nondominated(values, maximise=list(maximise), keep_weakly=True), dtype=bool)


def hypervolume(points: npt.ArrayLike, reference: Sequence[float], maximise: Sequence[bool]) -> float:
    """Compute the volume that the points dominate, up to the reference point (Zitzler and Thiele, 1998).

    Args:
        points: Objectives, `(n, k)`; finite. Points not better than the reference in every objective add nothing.
        reference: The reference point, `(k,)`.
        maximise: Direction of each of the k objectives.

    Returns:
        The volume, in the product of the objectives' units.
    """
    import moocore

    values = _checked(points, maximise)
    sign = np.where(maximise, -1.0, 1.0)
    costs, limit = values * sign, np.asarray(reference, dtype=float) * sign
    inside = costs[(costs < limit).all(axis=1)]
    return float(moocore.hypervolume(inside, ref=limit)) if len(inside) else 0.0


def reference_point(points: npt.ArrayLike, maximise: Sequence[bool]) -> Floats:
    """Make a point that is worse than all: a tenth of the range beyond their worst values.

    Args:
        points: Objectives, `(n, k)` with n of at least 1; finite.
        maximise: Direction of each of the k objectives.

    Returns:
        The point, `(k,)`. If all values are equal, the margin is a tenth of the value, or 1 if the value is zero.
    """
    values = _checked(points, maximise)
    low, high = values.min(axis=0), values.max(axis=0)
    width = np.where(high > low, high - low, np.abs(high))
    margin = np.where(width > 0, _MARGIN * width, 1.0)
    worst: Floats = np.where(maximise, low - margin, high + margin)
    return worst


def knee(costs: npt.ArrayLike, scores: npt.ArrayLike) -> Knee | None:
    """Find the knee of a set of points: the point of their front farthest above the chord between the front's ends.

    Args:
        costs: Costs, `(n,)`, as logarithms if their ratios matter (parameter counts).
        scores: Scores, `(n,)`.

    Returns:
        The knee, the cheapest of equally high ones; None if no point of the front lies above the chord, as with fewer
        than three points.
    """
    points = np.column_stack([np.asarray(costs, dtype=float), np.asarray(scores, dtype=float)])
    front = np.flatnonzero(nondominated(points, (False, True)))
    if len(front) < 3:
        return None
    low, high = points[front].min(axis=0), points[front].max(axis=0)
    if (high <= low).any():
        return None
    cost, score = ((points[front] - low) / (high - low)).T
    heights = (score - cost) / np.sqrt(2)
    order = np.lexsort((cost, -np.round(heights, 12)))
    best = order[0]
    return Knee(index=int(front[best]), height=float(heights[best])) if heights[best] > 1e-9 else None


def smallest_within(costs: Sequence[tuple[float, ...]], scores: Sequence[float], errors: Sequence[float]) -> int:
    """Find the cheapest point whose score is within one standard error of the best.

    Args:
        costs: Cost of each point; tuples are compared item by item.
        scores: Score of each point; at least one.
        errors: For each point, standard error of its distance from the best score.

    Returns:
        The position of the point; the better of equally cheap ones.
    """
    best = max(scores)
    close = [i for i, score in enumerate(scores) if best - score <= max(errors[i], 0.0)]
    return min(close, key=lambda i: (costs[i], -scores[i]))


def _checked(points: npt.ArrayLike, maximise: Sequence[bool]) -> Floats:
    values = np.asarray(points, dtype=float).reshape(-1, len(maximise))
    if not np.isfinite(values).all():
        raise ValueError("objectives must be finite")
    return values
