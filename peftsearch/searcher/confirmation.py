"""The confirmation: which trainings it still wants, look by look, and its measured designs."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import replace
from math import inf

import optuna

from peftsearch.searcher.comparison import scores_by_task
from peftsearch.searcher.planning import time_for
from peftsearch.searcher.prepare import Setup
from peftsearch.searcher.verdict import Rules, arms_left, judge
from peftsearch.study.confirmed import Confirmed
from peftsearch.study.hits import hits_of
from peftsearch.study.trial_record import TrialRecord
from peftsearch.study.trials import Kind, State, not_interrupted
from peftsearch.tasks.own_metric import short_name
from peftsearch.units import Scores


def rules_of(setup: Setup, frozen: Confirmed | None = None) -> Rules:
    """What the verdict of a study is reached by.

    Args:
        setup: The settings of the study.
        frozen: The frozen model, for generation tasks; without it such a task has no floor.
    """
    suite, search = setup.suite, setup.options.search
    return Rules(
        metric=short_name(suite.metric),
        margin=search.margin / 100,
        n_looks=len(setup.strategy.confirm.looks),
        prefer_small=search.prefer == "small",
        majority=suite.reported_majority if suite.kind != "generation" else float("-inf"),
        majority_name=suite.majority_name,
        frozen=frozen,
        n_steps=setup.lengths.confirm,
        n_trials=setup.strategy.trials,
        n_examples=suite.n_test,
    )


def current(confirm: optuna.Study, setup: Setup) -> list[TrialRecord]:
    """Trainings of the confirmation with the length that it has now, without interrupted ones.

    Args:
        confirm: The study of the confirmation.
        setup: The settings of the study.
    """
    records = (TrialRecord.of(t, Kind.CONFIRM) for t in not_interrupted(confirm))
    return [t for t in records if not t.facts.steps or t.facts.steps == setup.lengths.confirm]


def measured(
    confirmations: Sequence[TrialRecord], finalists: Sequence[Confirmed], seeds: Container[int] | None = None
) -> list[Confirmed]:
    """The finalists with the scores of their completed trainings, seed by seed.

    Args:
        confirmations: Trainings of the confirmation.
        finalists: The designs to confirm.
        seeds: Those that count; None takes all.
    """
    counting = [t for t in confirmations if seeds is None or t.facts.seed in seeds]
    return [_with_scores(f, [t for t in counting if t.name == f.name]) for f in finalists]


def _with_scores(finalist: Confirmed, own: Sequence[TrialRecord]) -> Confirmed:
    done = {t.facts.seed: t for t in own if t.state == State.COMPLETE and t.score is not None}
    trainings = [done[seed] for seed in sorted(done, key=lambda seed: seed or 0)]
    tests = [t.facts for t in trainings]
    return replace(
        finalist,
        seeds=tuple(t.facts.seed or 0 for t in trainings),
        validation=Scores(tuple(t.score for t in trainings if t.score is not None)),
        tasks=scores_by_task(trainings),
        validation_hits=hits_of([t.facts.right or "" for t in trainings]),
        test=Scores(tuple(f.test_score for f in tests if f.test_score is not None)),
        report_loss=Scores(tuple(f.test_loss for f in tests if f.test_loss is not None)),
        hits=hits_of([f.test_right or "" for f in tests]),
        losses=hits_of([f.test_losses or "" for f in tests]),
        n_collapsed=sum(f.collapsed or 0 for f in tests),
    )


def _in_time(
    left: list[tuple[Confirmed, int]], begun: Container[tuple[str, int | None]], seed_s: float, left_s: float
) -> list[tuple[Confirmed, int]]:
    """The trainings of seeds that some design began, which would otherwise be for nothing, and of those in time.

    Args:
        left: Trainings that are not begun, seed by seed.
        begun: Names and seeds that are.
        seed_s: Seconds that a seed takes for all designs.
        left_s: Seconds that the run may still take.
    """
    names = {f.name for f, _ in left}
    fresh = [s for s in dict.fromkeys(seed for _, seed in left) if not any((name, s) in begun for name in names)]
    late = set(fresh[max(0, int(left_s / seed_s)) :]) if 0 < seed_s < inf and left_s < inf else set()
    return [(f, seed) for f, seed in left if seed not in late]


def open_confirmations(
    setup: Setup,
    finalists: Sequence[Confirmed],
    confirmations: Sequence[TrialRecord],
    seeds: Sequence[int],
    left_s: float = inf,
) -> list[tuple[Confirmed, int]]:
    """The trainings that the confirmation wants and no process has begun, seed by seed.

    All finalists get the first seeds; after the cut, the best design of the search, the best baseline and the cheapest
    that may do as well get those up to the first look. At each look the confirmation ends if the answer is clear;
    otherwise the designs that are still close get the seeds of the next one.

    Args:
        setup: The settings of the study.
        finalists: The designs to confirm.
        confirmations: Trainings of the confirmation, without interrupted ones.
        seeds: Seeds of the confirmation, as many as the last look has.
        left_s: Seconds that the run may still take; after the first look, seeds that would take longer are left out,
            so that the last look is at as many as the time allows.
    """
    arms, earlier, confirm = list(finalists), 0, setup.strategy.confirm
    begun = {(t.name, t.facts.seed) for t in confirmations}
    for look in (confirm.cut, *confirm.looks) if confirm.cuts else confirm.looks:
        wanted = [(f, seed) for seed in seeds[:look] for f in arms]
        if left := [(f, seed) for f, seed in wanted if (f.name, seed) not in begun]:
            return left if not earlier else _in_time(left, begun, time_for(1, 0, len(arms), confirmations), left_s)
        names = {f.name for f in arms}
        own = seeds[:look]  # trainings of a later look may have begun
        if any(t.state == State.RUNNING for t in confirmations if t.name in names and t.facts.seed in own):
            return []
        scored = measured(confirmations, arms, own)
        if confirm.cuts and look == confirm.cut:
            if any(c.validation.values for c in scored):
                kept = {c.name for c in arms_left(scored, rules_of(setup), close=0.0)}
                arms = [f for f in arms if f.name in kept]
            earlier = look
            continue
        verdict = judge(scored, rules_of(setup))
        if verdict is None or verdict.is_clear:
            return []
        left_names = {c.name for c in arms_left(scored, rules_of(setup))}
        arms, earlier = [f for f in arms if f.name in left_names], look
    return []
