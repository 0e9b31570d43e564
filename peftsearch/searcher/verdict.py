"""Decide what the confirmed scores support: a winner, a tie, or no signal.

The confirmed designs are trained with the same seeds. Two thresholds answer two questions:

- May a winner be claimed? Only if a two-sided t-test separates it from every confirmed baseline at the 5% level, after
  Holm's correction for their number. Designs that the test does not separate are called tied.
- Which design to take? The cheapest within one standard error of the best (Breiman et al., 1984). The standard error
  combines that of the best mean over seeds and that of the difference over examples. A design's own spread over seeds
  does not widen it, and cheaper designs that are worse by more are not taken, tied or not.

The test is Welch's with one more component. In addition to the variances of the two means over seeds, it counts that of
the paired differences over the validation examples (where each prediction is right or wrong, or has its own score),
since another sample of examples would give other scores. For metrics that are not a mean over examples (F1, Matthews,
correlations, BLEU), only the variance over seeds counts. The variance of a score is never taken below that of rounding
to whole validation examples. Designs with fewer scores than the others, because trainings failed, are neither winners
nor tied.

The validation split that compares the designs also selected them; the test split, if there is one, is the independent
check.

- `no_signal`: even the best mean is at most two standard errors above the majority class or, for generation, above the
  frozen model on the same examples: training has had no visible effect.
- `baseline`: a baseline has the best mean, and the test separates it from every design of the search.
- `tie`: the test does not separate the best mean from every design of the other kind (found or baseline).
- `winner`: a design of the search has the best mean, and the test separates it from every baseline.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, sqrt
from statistics import stdev

from peftsearch.study.best import VerdictKind
from peftsearch.study.confirmed import Confirmed
from peftsearch.units import plural

LEVEL = 0.05
"""Significance level: the chance of calling two equal designs different."""
_POWER = 2.8
"""Standard errors that a difference must span to be found at the 5% level with 80% power (1.96 + 0.84)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """The claim that the scores support."""

    kind: VerdictKind
    pick: Confirmed
    """The design to use."""
    best: Confirmed
    """The design with the highest mean."""
    best_baseline: Confirmed | None
    """The baseline with the highest mean."""
    tied: tuple[Confirmed, ...]
    """The best, and the designs of the other kind (baselines or found ones) that cannot be distinguished from it."""
    p_value: float | None
    """Corrected p-value of the pick against the best baseline; None if they are not compared."""
    statement: str
    """The result in a sentence or two."""
    settle: str
    """Advice that would settle an open question; empty if there is none."""


def judge(
    candidates: Sequence[Confirmed],
    *,
    majority: float,
    n_validation: int,
    metric: str,
    n_steps: int,
    frozen: Confirmed | None = None,
) -> Verdict | None:
    """Decide what the scores support.

    Args:
        candidates: The confirmed designs.
        majority: Score of always predicting the majority class (0 for correlations).
        n_validation: Number of validation examples.
        metric: Name of the metric, for the statement.
        n_steps: Optimizer steps of the confirmation, for the advice.
        frozen: The frozen model, which replaces the majority class for tasks without a head.

    Returns:
        The verdict; None if no candidate has a score.
    """
    n_seeds = max((len(c.validation.values) for c in candidates), default=0)
    # A design with failed seeds is left out: its mean is over other seeds, perhaps only the lucky ones.
    full = [c for c in candidates if c.validation.values and len(c.validation.values) == n_seeds]
    if not full:
        return None
    best = max(full, key=lambda c: (c.mean, -c.size))
    baselines = [c for c in full if c.baseline]
    found = [c for c in full if not c.baseline]
    best_baseline = max(baselines, key=lambda c: (c.mean, -c.size), default=None)
    # The claim is about found designs against baselines, so only the other kind competes with the best. Fewer tests
    # also cost less power under Holm's correction.
    rivals = found if best.baseline else baselines
    p_values = _compare(best, rivals, n_validation)
    tied = [best, *(c for c in rivals if p_values[c.name] >= LEVEL)]
    close = [c for c in full if best.mean - c.mean <= standard_error(best, c, n_validation)]
    # A cheaper design of the other kind must be tied to be picked: otherwise it is known to be worse.
    pick, p_value, settle = _cheapest([c for c in close if c in tied or c.baseline == best.baseline]), None, ""
    kind: VerdictKind
    floor, noise = _floor(best, majority, frozen, n_validation)
    if best.mean - floor <= 2 * noise:
        name = "majority class" if frozen is None else frozen.name
        kind, text = "no_signal", _no_signal_text(best, pick, metric, f"{name} ({floor:.4f})", 2 * noise)
        settle = f"Train longer (--steps {4 * n_steps}), use more data or a larger budget, and check the labels."
    elif best_baseline is None:
        kind, text = "tie", f"No winner: no baseline has all {plural(n_seeds, 'score')}, so {best.name} has no rival."
        settle = "Check in trials.csv why the baselines failed; confirm more of them with --confirm-baselines."
    elif len(tied) > 1:
        kind, (text, settle) = "tie", _tie_text(best, tied, pick, metric, n_validation)
    elif best.baseline:
        kind, (text, settle) = "baseline", _baseline_text(best, pick, rivals, metric)
    else:
        # The claim names the pick, not the best, so a cheaper pick must itself be separated from every baseline. The
        # best always qualifies, since no rival is tied with it.
        told = {
            c.name: _compare(c, baselines, n_validation) for c in found if c in close and c.mean > best_baseline.mean
        }
        pick = _cheapest([c for c in found if c.name in told and max(told[c.name].values()) < LEVEL])
        p_value = told[pick.name][best_baseline.name]
        kind, text = "winner", _winner_text(pick, best, best_baseline, metric, p_value)
    return Verdict(
        kind=kind,
        pick=pick,
        best=best,
        best_baseline=best_baseline,
        tied=tuple(tied),
        p_value=p_value,
        statement=text,
        settle=settle,
    )


def _cheapest(candidates: Sequence[Confirmed]) -> Confirmed:
    """The design with the fewest parameters; on equal parameters, the one with the better mean."""
    return min(candidates, key=lambda c: (c.size, -c.mean))


def _floor(best: Confirmed, majority: float, frozen: Confirmed | None, n_validation: int) -> tuple[float, float]:
    """The score of an untrained model, and the standard error of the best mean's difference from it."""
    if frozen is not None:
        return frozen.mean, standard_error(best, frozen, n_validation)
    return majority, sqrt(
        _variance(best, n_validation) / len(best.validation.values) + _chance_variance(majority, n_validation)
    )


def _chance_variance(majority: float, n_validation: int) -> float:
    """Variance of the majority class's score on a sample of this size; for correlations, of a correlation of zero."""
    return majority * (1 - majority) / n_validation if majority > 0 else 1 / n_validation


def _variance(c: Confirmed, n_validation: int) -> float:
    """Variance of one score; never below that of rounding to whole examples."""
    # Equal scores on a few seeds have zero variance, which would make any difference significant. A rounding error is
    # uniform over a step of 1/n, hence the twelfth.
    return max((c.validation.std or 0.0) ** 2, (1 / n_validation) ** 2 / 12)


def _components(a: Confirmed, b: Confirmed, n_validation: int) -> list[tuple[float, int]]:
    """Variances of the difference of two means, each with its degrees of freedom: seeds of a, seeds of b, examples."""
    parts = [(_variance(c, n_validation) / len(c.validation.values), len(c.validation.values) - 1) for c in (a, b)]
    if len(a.hits) == len(b.hits) > 1:
        # Paired, since both designs see the same examples: the difficulty that they share cancels out.
        differences = [x - y for x, y in zip(a.hits, b.hits, strict=True)]
        parts.append((stdev(differences) ** 2 / len(differences), len(differences) - 1))
    return parts


def standard_error(best: Confirmed, other: Confirmed, n_validation: int) -> float:
    """Standard error of the best mean's lead over another design, ignoring the other's variance over seeds."""
    # A noisy design must not count as close merely because it is noisy.
    of_best, _, *of_examples = [variance for variance, _ in _components(best, other, n_validation)]
    return sqrt(of_best + sum(of_examples))


def _p_value(a: Confirmed, b: Confirmed, n_validation: int) -> float:
    """Two-sided p-value with Welch and Satterthwaite's degrees of freedom; 1 if a design has fewer than two scores."""
    from scipy.stats import t

    if len(a.validation.values) < 2 or len(b.validation.values) < 2:
        return 1.0
    parts = _components(a, b, n_validation)
    total = sum(variance for variance, _ in parts)
    freedom = total**2 / sum(variance**2 / df for variance, df in parts)
    return float(2 * t.sf(abs(a.mean - b.mean) / sqrt(total), freedom))


def _compare(a: Confirmed, rivals: Sequence[Confirmed], n_validation: int) -> dict[str, float]:
    """Corrected p-values of one design against each rival, by the rival's name."""
    return _holm({c.name: _p_value(a, c, n_validation) for c in rivals})


def _holm(p_values: dict[str, float]) -> dict[str, float]:
    """Correct p-values for their number by Holm's step-down procedure (1979)."""
    # `running` keeps the corrected values in the order of the raw ones, although the factor falls with the rank.
    adjusted, running = {}, 0.0
    for rank, (name, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        running = max(running, min(1.0, p * (len(p_values) - rank)))
        adjusted[name] = running
    return adjusted


def _no_signal_text(best: Confirmed, pick: Confirmed, metric: str, floor: str, noise: float) -> str:
    return (
        f"No signal: the best mean {metric}, {best.mean:.4f}, does not exceed the {floor} "
        f"by two standard errors ({noise:.4f}). No design can be recommended on these data; {pick.name} is the "
        "cheapest within one standard error of the best."
    )


def _baseline_text(best: Confirmed, pick: Confirmed, found: list[Confirmed], metric: str) -> tuple[str, str]:
    text = f"No design of the search beats the best baseline, {best.name}: mean {metric} {best.mean:.4f}"
    if found:
        rival = max(found, key=lambda c: c.mean)
        text += f" against {rival.mean:.4f} for the best design found, {rival.name}"
    if pick is not best:
        text += f"; {pick.name} ({pick.mean:.4f}) is within one standard error of it and cheaper"
    return f"{text}.", "A longer search (--trials, --search-steps) may find one that does."


def _tie_text(
    best: Confirmed, tied: list[Confirmed], pick: Confirmed, metric: str, n_validation: int
) -> tuple[str, str]:
    names = ", ".join(f"{c.name} {c.mean:.4f}" for c in sorted(tied, key=lambda c: -c.mean))
    baselines = [c for c in tied if c.baseline and c is not best]
    text = (
        f"No winner: these designs cannot be distinguished by mean {metric} "
        f"over {plural(len(best.validation.values), 'seed')}: {names}. "
        f"The cheapest within one standard error of the best is {pick.name}: {pick.mean:.4f} with {pick.size:,} "
        "parameters."
    )
    if len(best.validation.values) < 2:
        return text, "One seed cannot distinguish designs: give at least --seeds 5."
    if not baselines:
        return text, "The best mean is a baseline's: a longer search (--trials) may find a design that beats it."
    rival = max(baselines, key=lambda c: c.mean)
    gap = best.mean - rival.mean
    if gap < 1 / n_validation:
        return text, "The gap to the best baseline is less than one validation example: more seeds will not settle it."
    seeds_a, seeds_b, *examples = [variance for variance, _ in _components(best, rival, n_validation)]
    # The gap is found if gap >= _POWER * sqrt(variance over seeds + variance over examples). More seeds shrink only the
    # first, so `left` is the variance over seeds that the examples leave room for.
    left = (gap / _POWER) ** 2 - sum(examples)
    n_seeds = len(best.validation.values)
    if left <= 0:
        needed = ceil(n_validation * sum(examples) / (gap / _POWER) ** 2)
        return text, (
            f"A gap of {gap:.4f} to {rival.name} is within the noise of {n_validation:,} validation examples: about "
            f"{needed:,} would be needed, whatever the number of seeds."
        )
    needed = max(n_seeds + 1, ceil(n_seeds * (seeds_a + seeds_b) / left))
    return text, (
        f"A gap of {gap:.4f} to {rival.name} would need about --seeds {needed} (80% power at the 5% level), "
        "or more steps or validation examples."
    )


def _winner_text(pick: Confirmed, best: Confirmed, baseline: Confirmed, metric: str, p_value: float) -> str:
    text = f"Winner: {pick.name} with mean {metric} {pick.mean:.4f}"
    text += f" over {plural(len(pick.validation.values), 'seed')}"
    text += f", {pick.mean - baseline.mean:+.4f} against the best baseline, {baseline.name} (p = {p_value:.2g})"
    if pick is not best:
        text += f". It is the cheapest within one standard error of the best, {best.name} ({best.mean:.4f})"
    return text + "."
