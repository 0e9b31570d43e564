"""What is trained of known designs after the first rung: the best go on, with other seeds and other learning rates.

Baselines and designs of the search are chosen apart, by the same rule.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil

from optuna.trial import FrozenTrial, TrialState

from peftsearch.design.design import Design
from peftsearch.searcher.prepare import Setup
from peftsearch.study.confirmed import Confirmed
from peftsearch.study.trials import Kind, TrialFacts, facts_of, is_interrupted, of_baseline, rung_of, value_of


@dataclass(frozen=True, kw_only=True, slots=True)
class Further:
    """A training of a known design."""

    name: str
    design: Design
    seed: int
    rung: int
    facts: TrialFacts
    """Facts of the trial before it begins."""


def open_promotions(trials: Sequence[FrozenTrial], setup: Setup) -> list[Further]:
    """The trainings that were chosen for the next rung and are not begun.

    Of the trainings of a rung, one in `keep` goes on, and at least as many as the confirmation takes. A rung is decided
    when nothing in it runs.

    Args:
        trials: The trials of the search, while no more trials begin in the first rung.
        setup: The settings of the study.
    """
    counting = [t for t in trials if not is_interrupted(t) and facts_of(t).kind != Kind.RATE]
    for rung in range(1, len(setup.lengths.rungs)):
        before = [t for t in counting if rung_of(t) == rung - 1]
        if any(t.state == TrialState.RUNNING for t in before):
            return []
        begun = {facts_of(t).name for t in counting if rung_of(t) == rung}
        if left := [t for t in chosen_for_next(before, setup) if facts_of(t).name not in begun]:
            return [_onwards(t, rung, Kind.PROMOTED) for t in left]
    return []


def open_repeats(trials: Sequence[FrozenTrial], setup: Setup) -> list[Further]:
    """The trainings with further seeds that the best of the last rung want and nothing has begun.

    Args:
        trials: The trials of the search, when no more of them begin or go on.
        setup: The settings of the study.
    """
    rung = len(setup.lengths.rungs) - 1
    counting = [t for t in trials if not is_interrupted(t) and facts_of(t).kind not in (Kind.RATE, Kind.REPEAT)]
    chosen = chosen_for_next([t for t in counting if rung_of(t) == rung], setup)
    known = (facts_of(t) for t in trials if not is_interrupted(t) and facts_of(t).kind == Kind.REPEAT)
    begun = {(facts.name, facts.seed) for facts in known}
    return [
        replace(again, seed=again.seed + i)
        for i in range(1, setup.strategy.search.seeds)
        for again in (_onwards(t, rung, Kind.REPEAT) for t in chosen)
        if (again.name, again.seed + i) not in begun
    ]


def chosen_for_next(before: Sequence[FrozenTrial], setup: Setup) -> list[FrozenTrial]:
    """The trainings of a rung that go on, best first, those of the search before the baselines."""
    search, confirm = setup.strategy.search, setup.strategy.confirm
    chosen: list[FrozenTrial] = []
    for baseline, least in ((False, confirm.best), (True, confirm.baselines)):
        # The head alone is left out: it has no further steps.
        own = [t for t in _done(before) if of_baseline(t) == baseline and facts_of(t).n_params]
        own.sort(key=lambda t: (-value_of(t), t.number))
        chosen += own[: search.n_kept(len(own), least)]
    return chosen


def open_rates(trials: Sequence[FrozenTrial], setup: Setup, finalists: Sequence[Confirmed]) -> list[Further]:
    """The trainings at other learning rates that the finalists want and nothing has begun.

    Every finalist is trained at all rates up to the first rung; the better half of them goes on to the next, and so on.

    Args:
        trials: The trials of the search.
        setup: The settings of the study.
        finalists: The designs to confirm, chosen at their own rates.
    """
    counting = [t for t in trials if not is_interrupted(t)]
    wanted: list[Further] = []
    for finalist in finalists:
        if finalist.size and finalist.design is not None:
            wanted += _rates_of(finalist, counting, setup)
    return wanted


def _rates_of(finalist: Confirmed, trials: Sequence[FrozenTrial], setup: Setup) -> list[Further]:
    own = [t for t in trials if facts_of(t).arm == finalist.name]
    begun = {facts_of(t).name for t in own}
    base = finalist.design.learning_rate if finalist.design is not None else None
    base = base or setup.training.learning_rate
    assert finalist.design is not None, "a finalist has its design"
    others = [
        Further(
            name=f"{finalist.name} lr={rate:.3g}",
            design=replace(finalist.design, learning_rate=rate),
            seed=setup.options.seed if finalist.search_seed is None else finalist.search_seed,
            rung=0,
            facts=TrialFacts(
                kind=Kind.RATE,
                arm=finalist.name,
                family=finalist.family or None,
                baseline_too=finalist.baseline or None,
            ),
        )
        for rate in (float(f"{base * factor:.3g}") for factor in setup.strategy.search.rates)
    ]
    if left := [other for other in others if other.name not in begun]:
        return left
    n_left = len(others) + 1
    for rung in range(1, len(setup.lengths.rungs)):
        before = [t for t in own if rung_of(t) == rung - 1]
        if any(t.state == TrialState.RUNNING for t in before):
            return []
        # The finalist's own rate went on already, so that it has one of the places.
        n_left = max(2, ceil(n_left / 2))
        best = sorted(_done(before), key=lambda t: (-value_of(t), t.number))[: n_left - 1]
        begun = {facts_of(t).name for t in own if rung_of(t) == rung}
        if going := [t for t in best if facts_of(t).name not in begun]:
            return [_onwards(t, rung, Kind.RATE) for t in going]
    return []


def _done(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    return [t for t in trials if t.state == TrialState.COMPLETE and not facts_of(t).exceeds_limits]


def _onwards(earlier: FrozenTrial, rung: int, kind: Kind) -> Further:
    """The training that goes on from an earlier rung."""
    facts = facts_of(earlier)
    assert facts.design is not None, "a completed trial has its design"
    return Further(
        name=str(facts.name),
        design=Design.from_dict(facts.design),
        seed=facts.seed or 0,
        rung=rung,
        facts=TrialFacts(kind=kind, arm=facts.arm, family=facts.family, baseline_too=of_baseline(earlier) or None),
    )
