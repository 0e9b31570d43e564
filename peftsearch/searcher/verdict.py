"""Decide what the confirmed trainings support: a winner, an equivalence, a baseline, a tie, or no signal.

The confirmed designs are trained with the same seeds. Validation scores choose: the best mean inside the budget (the
pick), the best baseline (its rival), and the cheaper designs that may do as well. The claims are tested on the
reported examples, which chose nothing: the test split, or a part of the validation that was set aside.

- `no_signal`: the pick is at most two standard errors above the majority class or, for generation, above the frozen
  model: training has had no visible effect.
- `winner`: the pick is a design of the search and better than every confirmed baseline. The test is two-sided, paired
  by seed, corrected for the number of baselines (Holm, 1979), and counts that other examples would give other scores:
  the variance of the paired differences over the examples is added to that over the seeds.
- `equivalent`: a cheaper design is as good as the best baseline: a one-sided test, paired by seed, shows that its mean
  score on these examples is not behind by the margin. Where the other side is shown too (two one-sided tests), the
  statement says that they differ by less than the margin. Cheaper designs are tried in the order of their validation
  means, up to the first that fails, which needs no correction.
- `baseline`: the pick is a baseline, and better than every confirmed design of the search, by the test of the winner;
  or a one-sided test shows for each of them that the pick is not behind by the margin.
- `tie`: nothing of this; with what would settle it.

The confirmation looks at the scores several times and ends when the answer is clear. The level of each look is that of
Pocock (1977), so that all looks together keep the level. Where the metric does not decide, the paired losses on the
same examples are tested too, and a difference is reported as one in loss and nothing more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil, inf, sqrt
from statistics import NormalDist, stdev

from peftsearch.searcher.difference import Difference, loss_difference, savings, score_difference
from peftsearch.study.best import VerdictKind
from peftsearch.study.confirmed import Confirmed
from peftsearch.units import plural

LEVEL = 0.05
"""Level of all looks together."""
MARGIN = 0.005
"""Difference in score below which two designs count as equally good, by default."""
_POCOCK = {0.05: (0.05, 0.0294, 0.0221, 0.0182, 0.0158), 0.10: (0.10, 0.0607, 0.0464, 0.0384, 0.0336)}
"""Two-sided level of each look, by the level of all, for 1 to 5 looks."""
_POWER = 0.8
"""Power of what the advice on a tie asks for."""
_CLOSE = 2.0
"""Standard errors behind the best within which a design stays in the confirmation."""
_MOST_ARMS = 4
"""Most designs that go on after a look."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rules:
    """What a verdict is reached by."""

    metric: str
    """Name of the metric, for the statement."""
    margin: float = MARGIN
    """Difference in score below which two designs count as equally good."""
    n_looks: int = 1
    """Number of times that the scores are looked at, all in all."""
    prefer_small: bool = False
    """Whether the cheapest design that is not inferior is the pick."""
    majority: float = 0.0
    """Score of always predicting the majority class (0 for correlations)."""
    majority_name: str = "majority class"
    """What is always answered for that score."""
    frozen: Confirmed | None = None
    """The frozen model, which replaces the majority class for tasks without a head."""
    n_steps: int = 0
    """Optimizer steps of a training, for the advice."""
    n_trials: int = 0
    """Designs that the search trained, for the advice."""
    n_examples: int = 1
    """Number of reported examples."""

    def level(self, total: float) -> float:
        """Two-sided level of one look, so that all looks together have the level `total` (Pocock, 1977)."""
        table = _POCOCK[total]
        return table[self.n_looks - 1] if self.n_looks <= len(table) else total / self.n_looks

    @property
    def one_sided(self) -> float:
        """Level of a one-sided test at one look, so that all looks together have the usual level."""
        return self.level(2 * LEVEL) / 2

    @property
    def reach(self) -> float:
        """Standard errors that a difference must span to be found at the last look with the usual power."""
        return NormalDist().inv_cdf(1 - self.level(LEVEL) / 2) + NormalDist().inv_cdf(_POWER)


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """The claim that the scores support."""

    kind: VerdictKind
    pick: Confirmed
    """The design to use."""
    best: Confirmed
    """The design with the highest mean on validation."""
    best_baseline: Confirmed | None
    """The baseline with the highest mean on validation."""
    small: Confirmed | None = None
    """The cheapest design that is shown not to be inferior to the best baseline; None without one."""
    tied: tuple[Confirmed, ...] = ()
    """The best, and the designs of the other kind (baselines or found ones) that cannot be distinguished from it."""
    p_value: float | None = None
    """Corrected p-value of the claim; None without one."""
    statement: str
    """The result in a sentence or two."""
    settle: str = ""
    """Advice that would settle an open question; empty if there is none."""
    extend: str = ""
    """Options of `peftsearch extend` that follow the advice; empty where an extension would not help."""

    @property
    def is_clear(self) -> bool:
        """Whether more seeds would not change the answer."""
        return self.kind in ("winner", "equivalent", "baseline", "no_signal")


def judge(candidates: Sequence[Confirmed], rules: Rules) -> Verdict | None:
    """Decide what the scores support.

    Args:
        candidates: The confirmed designs, all trained with the same first seeds.
        rules: The metric, the margin and the level.

    Returns:
        The verdict; None if no candidate has a score.
    """
    full = _paired(candidates)
    if not full:
        return None
    best = _best(full)
    baselines = [c for c in full if c.baseline]
    rival = _best(baselines) if baselines else None
    small = None if rival is None else _smallest_equivalent(full, rival, rules)
    pick = small if small is not None and rules.prefer_small else best
    verdict = _claim(full, best, rival, small, rules)
    return replace(verdict, pick=pick, statement=verdict.statement + _on_small(verdict, pick))


def _paired(candidates: Sequence[Confirmed]) -> list[Confirmed]:
    """The candidates with the most seeds, all with the same ones.

    Those with fewer are left out: they were behind at an earlier look, or trainings failed.
    """
    most = max((len(c.validation.values) for c in candidates), default=0)
    full = [c for c in candidates if c.validation.values and len(c.validation.values) == most]
    shared = Counter(c.seeds for c in full).most_common(1)
    return [c for c in full if c.seeds == shared[0][0]]


def _on_small(verdict: Verdict, pick: Confirmed) -> str:
    """A sentence on the cheapest design that is not inferior, where the verdict does not name it."""
    small, rival = verdict.small, verdict.best_baseline
    if small is None or rival is None or verdict.kind == "no_signal":
        return ""
    if pick is not verdict.best:
        return f" The pick is {pick.name}, the cheapest that is not inferior to {rival.name}."
    if verdict.kind == "equivalent" or small is verdict.best:
        return ""
    return f" {small.name} is not inferior to {rival.name}, with {savings(small, rival)}."


def _claim(
    full: Sequence[Confirmed], best: Confirmed, rival: Confirmed | None, small: Confirmed | None, rules: Rules
) -> Verdict:
    """The verdict, with the best as the pick."""
    found = Verdict(kind="tie", pick=best, best=best, best_baseline=rival, small=small, statement="")
    floor, noise = _floor(best, rules)
    if best.report.mean - floor <= 2 * noise:
        name = rules.majority_name if rules.frozen is None else rules.frozen.name
        text = (
            f"No signal: the mean {rules.metric} of {best.name}, {best.report.mean:.4f}, does not exceed the {name} "
            f"({floor:.4f}) by two standard errors ({2 * noise:.4f}). No design can be recommended on these data."
        )
        advice = "Train longer, use more data or a larger budget, and check the labels."
        return replace(found, kind="no_signal", statement=text, settle=advice, extend=f"--steps {4 * rules.n_steps}")
    if rival is None:
        scores = plural(len(best.validation.values), "score")
        text = f"No winner: no baseline has all {scores}, so {best.name} has no rival."
        advice = "Check in trials.csv why the baselines failed, and confirm more of them."
        return replace(found, tied=(best,), statement=text, settle=advice, extend="--confirm-baselines 4")
    others = [c for c in full if c.baseline != best.baseline]
    p_values = _holm({c.name: score_difference(best, c, rules.n_examples).p_value() for c in others})
    level = rules.level(LEVEL)
    told = [c for c in others if p_values[c.name] < level and best.report.mean > c.report.mean]
    found = replace(found, tied=(best, *(c for c in others if c not in told)))
    is_told = bool(others) and len(told) == len(others)
    if is_told and not best.baseline:
        text = _winner(best, rival, p_values, rules)
        return replace(found, kind="winner", p_value=p_values[rival.name], statement=text)
    if small is not None:
        text, p_value = _equivalent(small, rival, best, rules)
        return replace(found, kind="equivalent", p_value=p_value, statement=text)
    if is_told:
        nearest = max(others, key=lambda c: c.report.mean)
        text = (
            f"The baseline {best.name} is better than every design found: mean {rules.metric} {best.report.mean:.4f} "
            f"against {nearest.report.mean:.4f} for {nearest.name} (p = {p_values[nearest.name]:.2g})."
        )
        return _baseline(found, text, p_values[nearest.name], rules)
    behind = max((score_difference(best, c, rules.n_examples).p_behind(rules.margin) for c in others), default=1.0)
    if best.baseline and behind < rules.one_sided:
        nearest = max(others, key=lambda c: c.report.mean)
        text = (
            f"The baseline {best.name} is as good as every design found: mean {rules.metric} {best.report.mean:.4f} "
            f"against {nearest.report.mean:.4f} for {nearest.name} over {plural(len(best.report.values), 'seed')}, at "
            f"most {_points(rules)} behind on these {rules.n_examples:,} examples (p = {behind:.2g})."
        )
        return _baseline(found, text, behind, rules)
    is_cheaper = bool(_cheaper(full, rival, rules))
    text, advice, n_seeds = _tie(best, rival, others, rules, is_cheaper=is_cheaper)
    return replace(found, statement=text, settle=advice, extend=f"--seeds {n_seeds}" if n_seeds else "")


def _baseline(found: Verdict, statement: str, p_value: float, rules: Rules) -> Verdict:
    """The verdict for the best baseline."""
    return replace(
        found,
        kind="baseline",
        p_value=p_value,
        statement=statement,
        settle="A longer search may find a design that beats it.",
        extend=f"--trials {2 * rules.n_trials}",
    )


def arms_left(candidates: Sequence[Confirmed], rules: Rules, close: float = _CLOSE) -> list[Confirmed]:
    """The designs that go on after a look that did not decide, by their validation scores.

    These are the best, the best baseline, the best design of the search, the cheapest within the margin of the best
    baseline, and others that are close to the best.

    Args:
        candidates: The confirmed designs.
        rules: The margin.
        close: Standard errors behind the best within which others go on.
    """
    full = _paired(candidates)
    best = _best(full)
    kinds = [[c for c in full if c.baseline], [c for c in full if not c.baseline]]
    kept = [best, *(_best(own) for own in kinds if own)]
    if kinds[0]:
        rival = _best(kinds[0])
        kept += sorted(_cheaper(full, rival, rules), key=lambda c: c.size)[:1]
    near = [c for c in full if best.mean - c.mean <= close * sqrt(_validation_variance(best, c))]
    ordered = list(dict.fromkeys(c.name for c in [*kept, *sorted(near, key=lambda c: -c.mean)]))
    names = set(ordered[: max(_MOST_ARMS, len({c.name for c in kept}))])
    return [c for c in candidates if c.name in names]


def _best(candidates: Sequence[Confirmed]) -> Confirmed:
    return max(candidates, key=lambda c: (c.mean, -c.size))


def _validation_variance(a: Confirmed, b: Confirmed) -> float:
    """Variance over seeds of the difference of two validation means."""
    pairs = [x - y for x, y in zip(a.validation.values, b.validation.values, strict=True)]
    return stdev(pairs) ** 2 / len(pairs) if len(pairs) > 1 else inf


def _cheaper(full: Sequence[Confirmed], rival: Confirmed, rules: Rules) -> list[Confirmed]:
    """Designs that cost less than the best baseline, with a validation mean within the margin; best mean first."""
    near = [c for c in full if savings(c, rival) and rival.mean - c.mean < rules.margin]
    return sorted(near, key=lambda c: -c.mean)


def _smallest_equivalent(full: Sequence[Confirmed], rival: Confirmed, rules: Rules) -> Confirmed | None:
    """The cheapest design that is shown not to be inferior to the best baseline; None without one."""
    shown: list[Confirmed] = []
    for candidate in _cheaper(full, rival, rules):
        # A fixed order that the reported examples did not choose: testing stops at the first failure, so that the
        # level holds for all of them together.
        if score_difference(candidate, rival, rules.n_examples).p_behind(rules.margin) >= rules.one_sided:
            break
        shown.append(candidate)
    return min(shown, key=lambda c: c.size, default=None)


def _floor(best: Confirmed, rules: Rules) -> tuple[float, float]:
    """The score of an untrained model, and the standard error of the best mean's difference from it."""
    n, frozen, majority = rules.n_examples, rules.frozen, rules.majority
    own = _variance(best.report.std, n) / len(best.report.values)
    if frozen is not None:
        return frozen.report.mean, sqrt(own + score_difference(best, frozen, n).of_examples)
    # For a correlation, the variance of a correlation of zero.
    return majority, sqrt(own + (majority * (1 - majority) / n if majority > 0 else 1 / n))


def _variance(std: float | None, n_examples: int) -> float:
    """Variance of one score; never below that of rounding to whole examples, which is uniform over a step of 1/n."""
    return max((std or 0.0) ** 2, (1 / n_examples) ** 2 / 12)


def standard_error(best: Confirmed, other: Confirmed, n_validation: int) -> float:
    """Standard error of the best validation mean's lead over another design, ignoring the other's spread over seeds."""
    # A noisy design must not count as close merely because it is noisy.
    of_best = _variance(best.validation.std, n_validation) / len(best.validation.values)
    if len(best.validation_hits) == len(other.validation_hits) > 1:
        differences = [x - y for x, y in zip(best.validation_hits, other.validation_hits, strict=True)]
        of_best += stdev(differences) ** 2 / len(differences)
    return sqrt(of_best)


def _holm(p_values: dict[str, float]) -> dict[str, float]:
    """Correct p-values for their number by Holm's step-down procedure (1979)."""
    # `running` keeps the corrected values in the order of the raw ones, although the factor falls with the rank.
    adjusted, running = {}, 0.0
    for rank, (name, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        running = max(running, min(1.0, p * (len(p_values) - rank)))
        adjusted[name] = running
    return adjusted


def _winner(best: Confirmed, rival: Confirmed, p_values: dict[str, float], rules: Rules) -> str:
    on_examples = score_difference(best, rival, rules.n_examples).of_examples
    where = "" if on_examples else f" on these {rules.n_examples:,} examples"
    return (
        f"Winner: {best.name} with mean {rules.metric} {best.report.mean:.4f} over "
        f"{plural(len(best.report.values), 'seed')}, {best.report.mean - rival.report.mean:+.4f} against the best "
        f"baseline, {rival.name}{where} (p = {p_values[rival.name]:.2g})."
    )


def _equivalent(small: Confirmed, rival: Confirmed, best: Confirmed, rules: Rules) -> tuple[str, float]:
    """The statement, and the p-value of the claim in it."""
    difference = score_difference(small, rival, rules.n_examples)
    margin = rules.margin
    p_value = difference.p_outside(margin)
    how = f"within {_points(rules)}"
    if p_value >= rules.one_sided:
        p_value, how = difference.p_behind(margin), f"at most {_points(rules)} behind"
    text = (
        f"Equivalent: {small.name} is as good as the best baseline, {rival.name}, with "
        f"{savings(small, rival)}: mean {rules.metric} {small.report.mean:.4f} against {rival.report.mean:.4f} over "
        f"{plural(difference.n, 'seed')}, {how} on these {rules.n_examples:,} examples (p = {p_value:.2g})."
    )
    if best is not rival and best is not small:
        text += f" The best mean is that of {best.name}, {best.report.mean:.4f}, which is not shown to be better."
    return text, p_value


def _points(rules: Rules) -> str:
    """The margin in words; a likelihood has no points."""
    return f"{rules.margin:g}" if rules.metric == "log_likelihood" else f"{100 * rules.margin:g} points"


def _tie(
    best: Confirmed, rival: Confirmed, others: Sequence[Confirmed], rules: Rules, *, is_cheaper: bool
) -> tuple[str, str, int]:
    """Statement and advice of a tie, and the number of seeds that would settle it; 0 if none would."""
    other = rival if not best.baseline else _best(others) if others else None
    if other is None:
        return (
            f"No winner: only baselines have all their scores; the best is {best.name}, mean {rules.metric} "
            f"{best.report.mean:.4f}.",
            "Check in trials.csv why the designs found have no score.",
            0,
        )
    difference = score_difference(best, other, rules.n_examples)
    text = (
        f"No winner: {best.name} (mean {rules.metric} {best.report.mean:.4f}) and {other.name} "
        f"({other.report.mean:.4f}) cannot be distinguished over {plural(difference.n, 'seed')}: the difference is "
        f"{difference.mean:+.4f}{f' ± {difference.se:.4f}' if difference.n > 1 else ''}."
    )
    loss = loss_difference(best, other)
    if loss is not None and loss.p_value() < rules.level(LEVEL):
        text += (
            f" In mean loss on the same examples {best.name if loss.mean < 0 else other.name} is lower, by "
            f"{abs(loss.mean):.4f} (p = {loss.p_value():.2g}); that is a difference in loss and nothing more."
        )
    return text, *_advice(difference, rules, is_cheaper=is_cheaper)


def _advice(difference: Difference, rules: Rules, *, is_cheaper: bool) -> tuple[str, int]:
    """What would settle a tie: seeds (and how many), examples, or neither."""
    if difference.n < 2:
        return "One seed cannot distinguish designs: train with five.", 5
    gap, one_seed = abs(difference.mean), difference.of_seeds * difference.n
    # The gap is found if gap >= reach * sqrt(variance over seeds + variance over examples); more seeds shrink only
    # the first. An equivalence needs the margin to exceed the gap by as much, over seeds alone.
    left = (gap / rules.reach) ** 2 - difference.of_examples
    if gap < rules.margin and is_cheaper:
        needed = max(difference.n + 1, ceil(one_seed / ((rules.margin - gap) / rules.reach) ** 2))
        return f"About {needed} seeds would show whether the cheaper is at most {_points(rules)} behind.", needed
    if left <= 0:
        needed = ceil(rules.n_examples * difference.of_examples / (gap / rules.reach) ** 2) if gap else 0
        many = f"about {needed:,} would be needed" if needed else "no number of them would show one"
        return (
            f"A gap of {gap:.4f} is within the noise of {rules.n_examples:,} examples: {many}, whatever the number of "
            "seeds.",
            0,
        )
    needed = max(difference.n + 1, ceil(one_seed / left))
    return f"About {needed} seeds would settle a gap of {gap:.4f} (80% power at the 5% level).", needed
