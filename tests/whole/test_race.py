"""The default strategy on a tiny model: rungs of one schedule, other rates, a stop in the middle."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from optuna.trial import TrialState

from peftsearch.engine.local import LocalEngine
from tests.runs import arguments, call, story, study

RUNGS = Path(__file__).parents[1] / "rungs.yaml"
RACE = ("--space", "hybrid", "--strategy", str(RUNGS), "--trials", "6", "--steps", "10", "--search-steps", "3")


@pytest.fixture(scope="module")
def raced(place, tmp_path_factory):
    """A finished run."""
    _, model, files = place
    runs = tmp_path_factory.mktemp("race")
    assert call(*arguments(model, files, runs, *RACE)) == 0
    return runs / "r"


def done(folder, which="search"):
    return [t for t in study(folder, which).trials if t.state == TrialState.COMPLETE]


def test_trainings_go_on_where_they_paused_and_no_step_is_paid_twice(raced):
    by_name = {}
    for t in done(raced):
        if t.user_attrs.get("kind") != "repeat":
            by_name.setdefault(t.user_attrs["name"], []).append(t.user_attrs)
    further = [legs for legs in by_name.values() if len(legs) > 1]
    assert len(further) >= 4
    for legs in further:
        assert [leg["rung"] for leg in legs] == [0, 1]
        assert [(leg.get("first", 0), leg["steps"]) for leg in legs] == [(0, 3), (3, 10)]
        assert all(a["steps"] == b["first"] for a, b in pairwise(legs))
        assert len({leg["seed"] for leg in legs}) == 1


def test_the_best_of_each_kind_go_on(raced):
    first = [t for t in done(raced) if t.user_attrs["rung"] == 0 and t.user_attrs.get("kind") in (None, "baseline")]
    going = {t.user_attrs["name"] for t in done(raced) if t.user_attrs.get("kind") == "promoted"}
    for baseline in (False, True):
        own = [t for t in first if (t.user_attrs.get("kind") == "baseline") == baseline and t.user_attrs["n_params"]]
        ranked = sorted(own, key=lambda t: t.user_attrs["loss"])
        n = sum(t.user_attrs["name"] in going for t in own)
        assert n >= 2
        assert {t.user_attrs["name"] for t in ranked[:n]} == {t.user_attrs["name"] for t in own} & going


def test_the_best_of_the_last_rung_are_trained_with_another_seed_and_rank_by_both(raced):
    last = [t.user_attrs for t in done(raced) if t.user_attrs["rung"] == 1]
    losses = {}
    for a in last:
        if a.get("kind") in ("promoted", "repeat"):
            losses.setdefault(a["name"], {})[a["seed"]] = a["loss"]
    twice = {name: by_seed for name, by_seed in losses.items() if len(by_seed) > 1}
    assert all(set(by_seed) == {0, 1} for by_seed in twice.values())
    # Two of each kind go on at least, so that the one that is behind with both seeds is confirmed as well.
    assert len(twice) == 4
    once = [by_seed[0] for name, by_seed in losses.items() if name not in twice]
    assert not once or max(by_seed[0] for by_seed in twice.values()) <= min(once)
    confirmed = {t.user_attrs["name"] for t in done(raced, "confirm")}
    assert {name for name in twice if name.startswith("trial")} <= confirmed


def test_every_finalist_was_tried_at_three_rates_and_keeps_the_best(raced):
    rates = [t for t in done(raced) if t.user_attrs.get("kind") == "rate"]
    arms = Counter(t.user_attrs["arm"] for t in rates if t.user_attrs["rung"] == 0)
    finalists = {t.user_attrs["name"] for t in done(raced, "confirm") if t.user_attrs.get("kind") != "reference"}
    assert "head" in finalists  # what no training costs is confirmed too
    finalists.remove("head")
    assert finalists <= set(arms)
    assert set(arms.values()) == {2}
    for name in finalists:
        own = [t for t in done(raced) if name in (t.user_attrs["name"], t.user_attrs.get("arm"))]
        own = [t for t in own if t.user_attrs["seed"] == 0]
        last = max(t.user_attrs["rung"] for t in own)
        best = max((t for t in own if t.user_attrs["rung"] == last), key=lambda t: t.user_attrs["value"])
        confirmed = next(t for t in done(raced, "confirm") if t.user_attrs["name"] == name)
        assert confirmed.user_attrs["learning_rate"] == best.user_attrs["learning_rate"]


def test_the_confirmation_has_paired_seeds_and_scores_what_was_set_aside(raced):
    confirmed = [t.user_attrs for t in done(raced, "confirm") if t.user_attrs.get("kind") != "reference"]
    assert set(Counter(a["seed"] for a in confirmed).values()) == {len({a["name"] for a in confirmed})}
    assert all(a["steps"] == (0 if a["name"] == "head" else 10) and "first" not in a for a in confirmed)
    best = yaml.safe_load((raced / "best.yaml").read_text())
    assert best["task"]["n_validation"] == best["task"]["n_test"] == 32  # of 64: there is no test file
    assert all("test_score" in a and len(a["test_right"]) == 32 for a in confirmed)


@pytest.mark.slow
@pytest.mark.parametrize("at", [3, 20, 30])
def test_a_stopped_run_goes_on_as_an_uninterrupted_one(place, raced, tmp_path, monkeypatch, at):
    """Stopped among the baselines, the promotions and the rates; the heads are not fitted again."""
    _, model, files = place
    argv = arguments(model, files, tmp_path, *RACE)
    run, calls = LocalEngine.run, []

    def stop(self, job, report=None):
        calls.append(job)
        if len(calls) == at + 3:  # two trainings measure the time of a step
            raise KeyboardInterrupt
        return run(self, job, report)

    monkeypatch.setattr(LocalEngine, "run", stop)
    assert call(*argv) == 130
    monkeypatch.undo()
    monkeypatch.setattr("peftsearch.engine.local.fit_head", lambda *_, **__: pytest.fail("fitted again"))
    assert call(*argv) == 0
    for which in ("search", "confirm"):
        own = [line for line in story(tmp_path / "r", which) if line[-1] == TrialState.COMPLETE]
        assert own == [line for line in story(raced, which) if line[-1] == TrialState.COMPLETE]


@pytest.mark.slow
def test_a_lost_snapshot_costs_steps_and_nothing_else(place, raced, tmp_path, monkeypatch):
    _, model, files = place
    monkeypatch.setattr("peftsearch.searcher.runner.TrialRunner._paused", lambda *_: ())
    assert call(*arguments(model, files, tmp_path, *RACE)) == 0
    assert story(tmp_path / "r") == story(raced)
