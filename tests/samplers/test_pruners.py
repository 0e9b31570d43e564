"""Pruners decide from what counts, and a resumed search stops the same trials."""

import random

import optuna
import pytest
from optuna.trial import TrialState

from peftsearch.engine.local import evaluation_steps
from peftsearch.errors import ConfigError
from peftsearch.samplers.pruners import Hyperband, make_pruner
from peftsearch.samplers.strategy import PRUNERS, Strategy, load_strategy
from peftsearch.study.private_optuna import write_user_attribute
from peftsearch.study.trials import Kind

STEPS = evaluation_steps(50, 4)[:-1]
assert STEPS == (12, 25, 38)


def strategy(pruner, **settings):
    return Strategy(name="mine", pruner=pruner, pruner_settings=settings)


def score_of(place, step):
    return random.Random(f"{place} {step}").random()


def run_trial(study, place, until=50):
    """Report scores as a trial of a search does; returns the step at which it was stopped, or None."""
    trial = study.ask()
    for step in STEPS:
        if step > until:
            return trial
        trial.report(score_of(place, step), step)
        if trial.should_prune():
            study.tell(trial, state=TrialState.PRUNED)
            return step
    study.tell(trial, score_of(place, 50))
    return None


def new_study(pruner):
    return optuna.create_study(direction="maximize", pruner=make_pruner(strategy(pruner), 50))


@pytest.mark.parametrize("pruner", PRUNERS)
class TestContract:
    @pytest.mark.parametrize("stop", [1, 9, 20])
    def test_a_killed_search_stops_the_same_trials(self, pruner, stop):
        study = new_study(pruner)
        whole = [run_trial(study, place) for place in range(40)]
        assert (whole.count(None) == 40) == (pruner == "none")
        study = new_study(pruner)
        before = [run_trial(study, place) for place in range(stop)]
        killed = run_trial(study, stop, until=12)
        if isinstance(killed, optuna.Trial):
            write_user_attribute(study, killed, "interrupted", True)
            study.tell(killed, state=TrialState.FAIL)
            before.append(run_trial(study, stop))
        else:
            before.append(killed)
        study = optuna.load_study(
            study_name=study.study_name, storage=study._storage, pruner=make_pruner(strategy(pruner), 50)
        )
        assert before + [run_trial(study, place) for place in range(stop + 1, 40)] == whole

    def test_baselines_do_not_influence_it(self, pruner):
        study = new_study(pruner)
        whole = [run_trial(study, place) for place in range(20)]
        study = new_study(pruner)
        for _ in range(8):
            study.enqueue_trial({}, user_attrs={"kind": Kind.BASELINE})
            baseline = study.ask()
            for step in STEPS:
                baseline.report(2.0, step)
                baseline.should_prune()
            study.tell(baseline, 2.0)
        assert [run_trial(study, place) for place in range(20)] == whole

    def test_unknown_settings_are_refused(self, pruner):
        with pytest.raises(
            ConfigError, match=f"strategy mine: pruner {pruner}: .*(no_such_setting|takes no arguments)"
        ):
            make_pruner(strategy(pruner, no_such_setting=1), 50)


def test_asha_lets_the_better_half_of_each_rung_go_on():
    """Rungs at 12 and 24 steps; the last one, at 48, comes after the last validation before the end."""
    study = new_study("asha")
    rungs = {12: [], 25: []}
    for place in range(40):
        stopped, expected = run_trial(study, place), None
        for step, scores in rungs.items():
            scores.append(score_of(place, step))
            if scores[-1] < sorted(scores, reverse=True)[max(1, len(scores) // 2) - 1]:
                expected = step
                break
        assert stopped == expected, place
    assert len(rungs[25]) < 30


@pytest.mark.parametrize("steps", [4, 200])
def test_rungs_follow_the_length_of_trials(steps):
    pruner = make_pruner(Strategy(name="mine", pruner="asha"), steps)
    study = optuna.create_study(direction="maximize", pruner=pruner)
    first = evaluation_steps(steps, 4)[0]
    for score in (1.0, 0.0):
        trial = study.ask()
        if first > 1:
            trial.report(score, first - 1)
            assert not trial.should_prune()
        trial.report(score, first)
        assert trial.should_prune() == (score == 0.0)


def test_hyperband_has_brackets_in_the_papers_proportion():
    """Algorithm 1 of arXiv 1603.06560 by hand, R = 81 and eta = 3: 5 * 81 / 5, 5 * 27 / 4, 5 * 9 / 3, 5 * 3 / 2, 5."""
    pruner = Hyperband(1, 81, 3)
    in_a_round = [pruner._round.count(i) for i in range(5)]
    assert in_a_round == [81, 34, 15, 8, 5]
    assert {pruner.bracket(place) for place in range(1, 20)} == set(range(5)), "a short search has trials of each"
    assert [pruner.bracket(place) for place in (1, 1 + sum(in_a_round))] == [0, 0]


def test_trials_of_the_last_bracket_are_never_stopped():
    study, pruner = new_study("hyperband"), Hyperband(12, 50, 2)
    stopped = [run_trial(study, place) for place in range(40)]
    by_bracket = [[s for place, s in enumerate(stopped, 1) if pruner.bracket(place) == b] for b in range(3)]
    assert set(by_bracket[0]) == {None, 12, 25}
    assert set(by_bracket[1]) == {None, 25}
    assert set(by_bracket[2]) == {None}


@pytest.mark.parametrize(
    ("pruner", "settings", "message"),
    [
        ("asha", {"min_share": 0}, "min_share must be above 0 and at most 1, got 0"),
        ("hyperband", {"min_share": 1.5}, "at most 1, got 1.5"),
        ("hyperband", {"reduction_factor": 1}, "reduction_factor >= 2"),
    ],
)
def test_settings_out_of_range(pruner, settings, message):
    with pytest.raises(ConfigError, match=message):
        make_pruner(strategy(pruner, **settings), 50)


@pytest.mark.parametrize("name", ["asha", "hyperband"])
def test_the_shipped_strategies_report_at_their_rungs(name):
    shipped = load_strategy(name)
    first = int(52 * shipped.pruner_settings["min_share"])
    reported = evaluation_steps(52, shipped.search.evaluations)[:-1]
    assert reported[0] == first
    assert len([s for s in reported if s >= first * shipped.pruner_settings["reduction_factor"]]) >= 1
