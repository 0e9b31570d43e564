"""How two confirmed designs differ: in score, in loss and in cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf, sqrt
from statistics import mean, stdev

from peftsearch.study.confirmed import Confirmed

_CHEAPER = 0.8
"""Share of another design's cost up to which a design counts as cheaper; parameters count exactly."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """The difference of two designs on the reported examples, over the seeds that both have."""

    mean: float
    n: int
    of_seeds: float
    """Variance of the mean over seeds."""
    of_examples: float
    """Variance of the mean over examples; 0 if it is not known."""
    n_examples: int

    @property
    def se(self) -> float:
        """Standard error over seeds and examples."""
        return sqrt(self.of_seeds + self.of_examples)

    def p_value(self) -> float:
        """Two-sided, over seeds and examples, with Welch and Satterthwaite's degrees of freedom; 1 below two seeds."""
        from scipy.stats import t

        if self.n < 2:
            return 1.0
        total = self.of_seeds + self.of_examples
        freedom = self.of_seeds**2 / (self.n - 1)
        if self.of_examples:
            freedom += self.of_examples**2 / (self.n_examples - 1)
        return float(2 * t.sf(abs(self.mean) / sqrt(total), total**2 / freedom))

    def p_behind(self, margin: float) -> float:
        """P-value of the one-sided test that the mean over seeds is above minus the margin; 1 below two seeds."""
        from scipy.stats import t

        if self.n < 2:
            return 1.0
        return float(t.sf((margin + self.mean) / sqrt(self.of_seeds), self.n - 1))

    def p_outside(self, margin: float) -> float:
        """P-value of the two one-sided tests that the mean over seeds lies within the margin; 1 below two seeds."""
        return max(self.p_behind(margin), replace(self, mean=-self.mean).p_behind(margin))


def score_difference(a: Confirmed, b: Confirmed, n_examples: int) -> Difference:
    """Difference of the scores of two designs on the reported examples."""
    return _difference(a.report.values, b.report.values, a.hits, b.hits, floor=(1 / n_examples) ** 2 / 6)


def loss_difference(a: Confirmed, b: Confirmed) -> Difference | None:
    """Difference of the mean losses of two designs on the reported examples; None if they are not recorded."""
    if not a.losses or len(a.losses) != len(b.losses):
        return None
    return _difference(a.report_loss.values, b.report_loss.values, a.losses, b.losses, floor=1e-12)


def _difference(
    a: Sequence[float], b: Sequence[float], on_a: Sequence[float], on_b: Sequence[float], floor: float
) -> Difference:
    """The difference, from the values by seed and the means by example.

    Args:
        a: Values of one design; the seeds of the shorter list are the first of the longer one.
        b: Values of the other.
        on_a: Mean over the seeds on each example; empty if not known.
        on_b: The same of the other.
        floor: Least variance of one seed's difference: that of rounding to whole examples.
    """
    pairs = [x - y for x, y in zip(a, b, strict=False)]
    spread = stdev(pairs) ** 2 if len(pairs) > 1 else inf
    by_example = [x - y for x, y in zip(on_a, on_b, strict=True)] if len(on_a) == len(on_b) > 1 else []
    return Difference(
        mean=mean(pairs) if pairs else 0.0,
        n=len(pairs),
        of_seeds=max(spread, floor) / max(1, len(pairs)),
        of_examples=stdev(by_example) ** 2 / len(by_example) if by_example else 0.0,
        n_examples=max(2, len(by_example)),
    )


def savings(design: Confirmed, other: Confirmed) -> str:
    """What a design costs in comparison to another, where it costs less; empty where it does not.

    Fewer parameters count in any case, the other costs if they are at most `_CHEAPER` of the other's.
    """
    found = [f"{100 * design.size / other.size:.0f}% of its parameters"] if design.size < other.size else []
    for name, own in design.costs.items():
        if (theirs := other.costs.get(name)) and own <= _CHEAPER * theirs:
            found.append(f"{100 * own / theirs:.0f}% of its {name}")
    return " and ".join(found)
