"""A search ends when none of its last trials was better, and not before."""

from types import SimpleNamespace

import pytest
from optuna.trial import TrialState, create_trial

from peftsearch.searcher.patience import ended_early


def setup_of(patience, trials=10, objectives=1, **sampler):
    strategy = SimpleNamespace(patience=patience, trials=trials)
    return SimpleNamespace(strategy=strategy, objectives=("score",) * objectives, sampler=SimpleNamespace(**sampler))


def trials_of(*values):
    return [create_trial(state=TrialState.PRUNED) if value is None else create_trial(value=value) for value in values]


@pytest.mark.parametrize(
    ("values", "ends"),
    [
        ((0.1, 0.5, 0.4, 0.3), False),
        ((0.1, 0.5, 0.4, 0.3, 0.2), True),
        ((0.1, 0.5, None, None, None), False),
        ((0.1, 0.5, 0.4, 0.3, 0.6), False),
        ((0.5, 0.5, 0.5, 0.5), True),  # the first of equal ones is the best
        ((), False),
    ],
)
def test_it_ends_after_three_trials_without_a_better_one(values, ends):
    assert bool(ended_early(trials_of(*values), setup_of(3))) is ends


def test_whole_searches_fronts_and_staged_samplers_do_not_end_early():
    trials = trials_of(0.5, 0.1, 0.1, 0.1)
    assert ended_early(trials, setup_of(3)) == (
        "The search ended after 4 of 10 trials: none of the last 3 was better than the best before them."
    )
    for setup in (setup_of(None), setup_of(3, trials=4), setup_of(3, objectives=2), setup_of(3, decisions=list)):
        assert ended_early(trials, setup) == ""
