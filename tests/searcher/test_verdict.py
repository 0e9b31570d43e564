"""Verdicts on made-up scores, against scipy's tests and by simulation."""

from __future__ import annotations

import random
from dataclasses import replace
from statistics import mean, stdev

import pytest
from scipy.stats import ttest_1samp, ttest_rel

from peftsearch.searcher.verdict import LEVEL, Rules, Verdict, arms_left, judge, score_difference
from peftsearch.study.confirmed import Confirmed
from peftsearch.units import Scores

RULES = Rules(metric="accuracy", majority=0.5, n_steps=100, n_trials=12, n_examples=500)


def candidate(name, scores, n_params=100, baseline=False, validation=None, **more):
    return Confirmed(
        name=name,
        baseline=baseline,
        n_params=n_params,
        validation=Scores(tuple(scores if validation is None else validation)),
        test=Scores(tuple(scores)),
        **more,
    )


def verdict(*candidates, **rules) -> Verdict:
    found = judge(candidates, replace(RULES, **rules))
    assert found is not None
    return found


LORA = (0.80, 0.81, 0.80, 0.81, 0.80)


def test_a_clear_winner():
    v = verdict(candidate("lora", LORA, baseline=True), candidate("trial 9", [0.90, 0.91, 0.90, 0.91, 0.90]))
    assert (v.kind, v.pick.name) == ("winner", "trial 9")
    assert "+0.1000 against the best baseline, lora" in v.statement
    assert v.is_clear


def test_one_rival_agrees_with_scipys_paired_test():
    a, b = [0.83, 0.86, 0.84, 0.87, 0.85], [0.81, 0.83, 0.80, 0.84, 0.82]
    p = ttest_rel(a, b).pvalue
    v = verdict(candidate("found", a), candidate("lora", b, baseline=True))
    assert v.kind == "winner"
    assert v.p_value == pytest.approx(p)


def test_two_one_sided_tests_agree_with_scipys():
    a, b = [0.801, 0.799, 0.803, 0.800, 0.798], [0.802, 0.800, 0.802, 0.799, 0.801]
    d = [x - y for x, y in zip(a, b, strict=True)]
    lower = ttest_1samp(d, -0.005, alternative="greater").pvalue
    upper = ttest_1samp(d, 0.005, alternative="less").pvalue
    v = verdict(candidate("ia3", a, n_params=60), candidate("lora", b, baseline=True), candidate("trial 1", b))
    assert v.p_value == pytest.approx(max(lower, upper))
    assert (v.kind, v.small.name, v.pick.name) == ("equivalent", "ia3", "lora")
    assert "ia3 is as good as the best baseline, lora, with 60% of its parameters" in v.statement
    assert "within 0.5 points on these 500 examples" in v.statement


def test_prefer_small_makes_the_cheapest_equivalent_the_pick():
    near = [0.801, 0.799, 0.803, 0.800, 0.798]
    designs = (
        candidate("lora", [0.802, 0.800, 0.802, 0.799, 0.801], baseline=True),
        candidate("ia3", near, n_params=60, baseline=True),
        candidate("layernorm", near[::-1], n_params=40, baseline=True),
    )
    v = verdict(*designs, prefer_small=True)
    assert (v.kind, v.pick.name, v.best.name) == ("equivalent", "layernorm", "lora")


def test_an_equivalence_is_not_tried_beyond_the_first_failure():
    """The cheapest is second by validation; the first by validation fails on the reported examples."""
    lora = candidate("lora", [0.80] * 5, baseline=True)
    first = candidate("ia3", [0.78] * 5, n_params=60, validation=[0.800] * 5)
    second = candidate("layernorm", [0.80] * 5, n_params=40, validation=[0.799] * 5)
    assert verdict(lora, second).kind == "equivalent"
    assert verdict(lora, first, second).kind != "equivalent"


def test_a_cheaper_design_that_is_better_does_not_hide_those_after_it():
    """It leads by more than the margin, which is not significant over the examples, but certainly not inferior."""
    hits = tuple([1.0, 0.0] * 250)
    lora = candidate("lora", [0.800, 0.801, 0.800, 0.801, 0.800], baseline=True, hits=hits)
    ahead = candidate("trial 3", [0.808, 0.809, 0.808, 0.808, 0.809], n_params=60, hits=hits[::-1])
    small = candidate("layernorm", [0.799, 0.800, 0.799, 0.801, 0.800], n_params=40, baseline=True, hits=hits)
    v = verdict(lora, ahead, small)
    assert (v.kind, v.small.name) == ("equivalent", "layernorm")
    v = verdict(lora, ahead)
    assert (v.kind, v.small.name) == ("equivalent", "trial 3")
    assert "at most 0.5 points behind" in v.statement


def test_a_design_of_the_same_size_may_be_cheaper_otherwise():
    near = [0.801, 0.799, 0.803, 0.800, 0.798]
    lora = candidate("lora", near[::-1], baseline=True, costs={"training FLOPs": 10.0, "training memory": 5.0})
    late = candidate("trial 2", near, n_params=101, costs={"training FLOPs": 7.0, "training memory": 4.6})
    v = verdict(lora, late)
    assert (v.kind, v.small.name) == ("equivalent", "trial 2")
    assert "lora, with 70% of its training FLOPs: mean" in v.statement
    assert verdict(lora, replace(late, costs={"training FLOPs": 9.0})).kind != "equivalent"


def test_seeds_are_paired_by_number():
    """Each lacks another seed: what is left of one is not held against other seeds of the other."""
    level = {1000: 0.80, 1001: 0.82, 1002: 0.84, 1003: 0.86, 1004: 0.81}

    def of(name, lead, without, **more):
        seeds = tuple(s for s in level if s != without)
        return candidate(name, [level[s] + lead for s in seeds], seeds=seeds, **more)

    v = verdict(of("lora", 0.0, 1003, baseline=True), of("trial 1", 0.01, 1001), of("trial 2", 0.01, 1003))
    assert (v.kind, v.pick.name) == ("winner", "trial 2")


def test_the_cheapest_that_is_not_inferior_stands_beside_a_winner_and_beside_a_pick():
    near = [0.801, 0.799, 0.803, 0.800, 0.798]
    designs = (
        candidate("lora", [0.802, 0.800, 0.802, 0.799, 0.801], baseline=True),
        candidate("ia3", near, n_params=60, baseline=True),
        candidate("trial 9", [0.90, 0.91, 0.90, 0.91, 0.90]),
    )
    assert "ia3 is not inferior to lora, with 60% of its parameters." in verdict(*designs).statement
    v = verdict(*designs, prefer_small=True)
    assert (v.kind, v.pick.name) == ("winner", "ia3")
    assert "The pick is ia3, the cheapest that is not inferior to lora." in v.statement


def test_a_tie_without_a_cheaper_design_does_not_promise_an_equivalence():
    lora = candidate("lora", [0.800, 0.802, 0.801, 0.800, 0.802], n_params=100, baseline=True)
    v = verdict(lora, candidate("trial 9", [0.802, 0.801, 0.800, 0.803, 0.801], n_params=105))
    assert v.kind == "tie"
    assert "cheaper" not in v.settle


def test_the_examples_that_choose_are_not_those_that_are_tested():
    """The best on validation is the pick, and is not told from a baseline that leads on the reported examples."""
    v = verdict(
        candidate("trial 9", [0.80] * 5, validation=[0.92, 0.93, 0.92, 0.93, 0.92]),
        candidate("lora", [0.85] * 5, baseline=True, validation=[0.80] * 5),
    )
    assert (v.kind, v.pick.name) == ("tie", "trial 9")


def test_within_noise_is_a_tie_that_says_what_would_settle_it():
    v = verdict(
        candidate("lora", [0.80, 0.85, 0.83], n_params=50, baseline=True),
        candidate("trial 9", [0.82, 0.84, 0.83], n_params=90),
    )
    assert (v.kind, v.pick.name) == ("tie", "trial 9")
    assert "No winner" in v.statement
    assert v.extend.startswith("--seeds")
    assert not v.is_clear


def test_a_difference_in_loss_is_said_to_be_that_and_no_more():
    losses = {"losses": (0.5, 0.6, 0.7), "report_loss": Scores((0.60, 0.601, 0.60))}
    lower = {"losses": (0.40, 0.501, 0.60), "report_loss": Scores((0.50, 0.50, 0.501))}
    v = verdict(
        candidate("lora", [0.80, 0.85, 0.83], baseline=True, **losses),
        candidate("trial 9", [0.82, 0.84, 0.83], n_params=150, **lower),
    )
    assert v.kind == "tie"
    assert "trial 9 is lower, by 0.1" in v.statement
    assert "nothing more" in v.statement


def test_a_baseline_that_beats_the_search_is_said_to():
    v = verdict(
        candidate("lora", [0.90, 0.91, 0.90, 0.91], n_params=90, baseline=True),
        candidate("trial 1", [0.80, 0.81, 0.80, 0.81], n_params=80),
    )
    assert (v.kind, v.pick.name) == ("baseline", "lora")
    assert "The baseline lora is better than every design found: mean accuracy 0.9050 against 0.8050" in v.statement
    assert v.extend == "--trials 24"


def test_a_baseline_that_nothing_found_beats_by_the_margin_is_as_good():
    lora = candidate("lora", [0.802, 0.800, 0.802, 0.799, 0.801], baseline=True, validation=[0.81] * 5)
    near = candidate("trial 1", [0.801, 0.799, 0.803, 0.800, 0.798], n_params=110, validation=[0.80] * 5)
    far = candidate("trial 2", [0.820, 0.790, 0.802, 0.780, 0.815], n_params=110, validation=[0.80] * 5)
    v = verdict(lora, near)
    assert (v.kind, v.pick.name) == ("baseline", "lora")
    assert "The baseline lora is as good as every design found" in v.statement
    d = [x - y for x, y in zip(lora.report.values, near.report.values, strict=True)]
    assert v.p_value == pytest.approx(ttest_1samp(d, -0.005, alternative="greater").pvalue)
    assert verdict(lora, near, far).kind == "tie"  # it holds for every design found, or not at all


def test_nothing_above_the_majority_class():
    v = verdict(candidate("lora", [0.51, 0.52], baseline=True), candidate("trial 1", [0.52, 0.52]))
    assert v.kind == "no_signal"
    assert "majority class (0.5000)" in v.statement
    assert v.extend == "--steps 400"


def test_one_seed_is_no_verdict():
    v = verdict(candidate("lora", [0.70], baseline=True), candidate("trial 1", [0.90], n_params=60))
    assert v.kind == "tie"
    assert v.extend == "--seeds 5"


def test_equal_scores_without_spread_do_not_make_a_winner():
    v = verdict(candidate("lora", [0.8] * 5, baseline=True), candidate("trial 1", [0.8] * 5, n_params=150))
    assert (v.kind, v.pick.name) == ("baseline", "lora")


def test_designs_with_failed_seeds_are_left_out():
    v = verdict(
        candidate("lora", LORA, baseline=True),
        candidate("trial 1", [0.99, 0.99], n_params=10),
        candidate("trial 2", [0.90, 0.91, 0.90, 0.91, 0.90]),
    )
    assert (v.kind, v.pick.name) == ("winner", "trial 2")


def test_without_a_baseline_there_is_no_winner():
    v = verdict(candidate("trial 1", [0.90, 0.91, 0.90]))
    assert v.kind == "tie"
    assert "no baseline" in v.statement


def test_the_noise_of_the_examples_counts_for_a_winner():
    """A lead of one point over many seeds on 100 examples is a lead on these examples alone."""
    rng = random.Random(0)
    easy = [rng.random() for _ in range(100)]
    a = candidate("trial 1", [0.81, 0.811] * 5, hits=tuple(min(1.0, x + rng.choice([-0.4, 0.42])) for x in easy))
    b = candidate("lora", [0.80, 0.801] * 5, baseline=True, hits=tuple(easy), n_params=50)
    assert verdict(a, b, n_examples=100).kind == "tie"
    assert verdict(replace(a, hits=()), b, n_examples=100).kind == "winner"
    difference = score_difference(a, b, 100)
    by_example = [x - y for x, y in zip(a.hits, b.hits, strict=True)]
    assert difference.of_examples == pytest.approx(stdev(by_example) ** 2 / 100)


def test_a_design_that_is_far_behind_does_not_go_on():
    arms = [
        candidate("lora", LORA, baseline=True),
        candidate("ia3", [0.5] * 5, n_params=60, baseline=True),
        candidate("trial 1", [0.79, 0.81, 0.80, 0.80, 0.80]),
        candidate("trial 2", [0.60, 0.61, 0.60, 0.61, 0.60]),
        candidate("trial 3", [0.802] * 5, n_params=30),
    ]
    assert {c.name for c in arms_left(arms, RULES)} == {"lora", "trial 1", "trial 3"}


@pytest.mark.parametrize("looks", [(5,), (5, 10, 20)])
def test_equal_designs_are_seldom_told_apart_and_true_equivalents_are_often_shown(looks):
    """Simulated with the looks as the confirmation has them: false winners stay below the level."""
    rng, n_runs = random.Random(1), 400
    false, shown = 0, 0
    for _ in range(n_runs):
        a, b, small = ([rng.gauss(0.85, 0.004) for _ in range(looks[-1])] for _ in range(3))
        for look in looks:
            v = verdict(
                candidate("trial 1", a[:look], n_params=120, validation=[0.9] * look),
                candidate("lora", b[:look], baseline=True, validation=[0.85] * look),
                candidate("ia3", small[:look], n_params=50, validation=[0.85 - 1e-9] * look),
                n_looks=len(looks),
            )
            if v.is_clear:
                break
        false += v.kind == "winner"
        shown += v.kind == "equivalent"
    assert false / n_runs < LEVEL
    assert shown / n_runs > (0.15 if len(looks) == 1 else 0.8)


@pytest.mark.parametrize("looks", [(5,), (5, 10, 20)])
def test_designs_that_differ_by_the_margin_are_seldom_called_equivalent(looks):
    rng, n_runs, false = random.Random(2), 400, 0
    for _ in range(n_runs):
        b = [rng.gauss(0.85, 0.004) for _ in range(looks[-1])]
        small = [rng.gauss(0.845, 0.004) for _ in range(looks[-1])]
        for look in looks:
            v = verdict(
                candidate("lora", b[:look], baseline=True, validation=[0.85] * look),
                candidate("ia3", small[:look], n_params=50, validation=[0.849] * look),
                n_looks=len(looks),
            )
            if v.kind == "equivalent":
                break
        false += v.kind == "equivalent"
    assert false / n_runs < LEVEL + 2 * (LEVEL * (1 - LEVEL) / n_runs) ** 0.5  # the level is exact at the margin


def test_looks_are_stricter_one_by_one():
    levels = [replace(RULES, n_looks=n).level(LEVEL) for n in (1, 2, 3, 4, 5, 7)]
    assert levels[0] == LEVEL
    assert levels == sorted(levels, reverse=True)
    assert mean(levels) < LEVEL
