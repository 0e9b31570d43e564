"""Which trainings the confirmation wants, look by look."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from peftsearch.samplers.strategy import ConfirmFidelity
from peftsearch.searcher.confirmation import measured, open_confirmations
from peftsearch.searcher.options import SearchOptions
from peftsearch.study.confirmed import Confirmed
from peftsearch.study.trial_record import TrialRecord
from peftsearch.study.trials import Kind, State, TrialFacts

SEEDS = range(1000, 1008)


def setup(looks: tuple[int, ...], cut: int = 0) -> Any:
    suite = SimpleNamespace(
        metric="accuracy", kind="classification", reported_majority=0.5, majority_name="majority class", n_test=500
    )
    return SimpleNamespace(
        suite=suite,
        options=SimpleNamespace(search=SearchOptions()),
        strategy=SimpleNamespace(confirm=ConfirmFidelity(looks=looks, cut=cut), trials=12),
        lengths=SimpleNamespace(steps=100, confirm=100),
    )


def arm(name: str, n_params: int = 100, *, baseline: bool = False) -> Confirmed:
    return Confirmed(name=name, baseline=baseline, n_params=n_params)


def training(name: str, seed: int, score: float, wall_s: float = 10.0, state: State = State.COMPLETE) -> TrialRecord:
    facts = TrialFacts(name=name, seed=seed, score=score, test_score=score, wall_s=wall_s)
    return TrialRecord(
        number=0, name=name, kind=Kind.CONFIRM, state=state, stage="", score=score if state == State.COMPLETE else None,
        values=(), params={}, facts=facts,
    )  # fmt: skip


ARMS = [arm("lora", baseline=True), arm("trial 1", 120), arm("trial 2", 120)]


def wanted(
    trainings: list[TrialRecord], looks: tuple[int, ...] = (2, 4, 8), cut: int = 0, **more: float
) -> list[tuple[str, int]]:
    found = open_confirmations(setup(looks, cut), ARMS, trainings, SEEDS, **more)
    return [(f.name, seed) for f, seed in found]


def scored(n: int, **scores: float) -> list[TrialRecord]:
    """Trainings of n seeds, whose scores alternate around the given ones."""
    names = {"lora": "lora", "one": "trial 1", "two": "trial 2"}
    return [
        training(names[key], seed, score + (0.01 if seed % 2 else -0.01))
        for key, score in scores.items()
        for seed in SEEDS[:n]
    ]


def test_all_designs_get_the_seeds_of_the_first_look_seed_by_seed() -> None:
    assert wanted([]) == [(a.name, seed) for seed in (1000, 1001) for a in ARMS]
    assert wanted(scored(1, lora=0.8, one=0.8, two=0.8)) == [(a.name, 1001) for a in ARMS]


def test_a_clear_answer_ends_it_and_an_open_one_goes_on_with_those_that_are_close() -> None:
    assert wanted(scored(4, lora=0.80, one=0.99, two=0.99), looks=(4, 8)) == []
    open_one = scored(4, lora=0.80, one=0.801, two=0.60)
    assert wanted(open_one, looks=(4, 8)) == [(n, s) for s in SEEDS[4:] for n in ("lora", "trial 1")]
    assert wanted(open_one, looks=(4,)) == []


def test_a_look_waits_for_running_trainings() -> None:
    trainings = scored(2, lora=0.8, one=0.8, two=0.8)[:-1]
    running = training("trial 2", 1001, 0.0, state=State.RUNNING)
    assert wanted([*trainings, running]) == []


def test_a_look_counts_only_its_own_seeds_when_the_next_one_began() -> None:
    first = scored(2, lora=0.800, one=0.801, two=0.800)
    later = [training("lora", 1002, 0.8), training("trial 1", 1002, 0.8, state=State.RUNNING)]
    assert wanted([*first, *later]) == [("lora", 1003), ("trial 1", 1003)]


def test_after_the_cut_only_the_best_of_each_kind_go_on() -> None:
    trainings = scored(2, lora=0.80, one=0.81, two=0.805)
    assert wanted(trainings, looks=(4, 8), cut=2) == [(n, s) for s in SEEDS[2:4] for n in ("lora", "trial 1")]
    behind = [*trainings, training("lora", 1002, 0.8)]
    assert wanted(behind, looks=(4, 8), cut=2) == [("trial 1", 1002), ("lora", 1003), ("trial 1", 1003)]
    assert wanted(trainings, looks=(4, 8), cut=0) == [(a.name, s) for s in SEEDS[2:4] for a in ARMS]


def test_failed_trainings_are_not_asked_for_again() -> None:
    trainings = scored(2, lora=0.8, one=0.8, two=0.8)[:-1]
    failed = training("trial 2", 1001, 0.0, state=State.FAILED)
    assert {name for name, _ in wanted([*trainings, failed])} == {"lora", "trial 1"}


def test_the_last_look_has_as_many_seeds_as_the_time_allows() -> None:
    trainings = scored(2, lora=0.80, one=0.801, two=0.80)
    each = [[(name, seed) for name in ("lora", "trial 1")] for seed in SEEDS[2:4]]  # those that are close
    assert wanted(trainings, left_s=41) == [*each[0], *each[1]]  # 10 s a training
    assert wanted(trainings, left_s=39) == each[0]
    assert wanted(trainings, left_s=19) == []
    assert wanted(trainings, left_s=-500) == []
    assert wanted([], left_s=1.0) == [(a.name, seed) for seed in SEEDS[:2] for a in ARMS], "the first look is made"


def test_a_seed_that_began_is_ended() -> None:
    trainings = scored(2, lora=0.80, one=0.801, two=0.80)
    assert wanted([*trainings, training("lora", 1002, 0.8)], left_s=1.0) == [("trial 1", 1002)]
    whole = [*trainings, *(training(a.name, 1002, 0.8) for a in ARMS)]
    assert wanted(whole, left_s=1.0) == []


def test_scores_are_paired_by_seed_whatever_the_order_of_the_trials() -> None:
    trainings = [training("lora", seed, seed / 10_000) for seed in (1002, 1000, 1001)]
    found = measured(trainings, [ARMS[0]])[0]
    assert found.test.values == found.validation.values == (0.1, 0.1001, 0.1002)
