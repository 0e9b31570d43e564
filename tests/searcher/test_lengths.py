"""The length of a training, and what validates a part of it."""

from __future__ import annotations

import pytest

from peftsearch.samplers.strategy import SearchFidelity
from peftsearch.searcher.lengths import choose_lengths


@pytest.mark.parametrize(
    ("n_train", "more", "steps"),
    [
        ([2_000], {}, 375),  # three epochs of 125 steps
        ([200], {}, 150),  # never below
        ([100_000], {}, 600),  # nor above
        ([100_000], {"epochs": 1.0}, 6_250),  # unless asked for
        ([200], {"epochs": 0.5}, 7),
        ([200], {"steps": 40}, 40),
        ([200, 2_000], {}, 375),  # the largest task counts
    ],
)
def test_steps_follow_from_the_data_within_bounds(n_train, more, steps):
    lengths = choose_lengths(SearchFidelity(), n_train=n_train, batch_size=16, **more)
    assert lengths.steps == steps
    assert lengths.epochs == pytest.approx(steps / -(-max(n_train) // 16))


@pytest.mark.parametrize(
    ("rungs", "more", "expected"),
    [
        ((0.1, 0.3, 1.0), {}, (30, 90, 300)),
        ((0.1, 0.3, 1.0), {"search_steps": 50}, (50, 90, 300)),
        ((0.1, 0.3, 1.0), {"search_steps": 100}, (100, 300)),
        ((0.3,), {"search_steps": 900}, (300,)),
    ],
)
def test_rungs_are_parts_of_one_schedule(rungs, more, expected):
    lengths = choose_lengths(SearchFidelity(rungs=rungs), n_train=[100], batch_size=16, steps=300, **more)
    assert lengths.rungs == expected
    assert [lengths.start_of(i) for i in range(len(expected))] == [0, *expected[:-1]]


def test_short_schedules_have_no_rung_of_zero_steps_and_no_two_equal_ones():
    fidelity = SearchFidelity(rungs=(0.1, 0.3, 1.0))
    assert choose_lengths(fidelity, n_train=[10], batch_size=16, steps=2).rungs == (1, 2)
    assert choose_lengths(fidelity, n_train=[10], batch_size=16, steps=1).rungs == (1,)


def test_validation_takes_a_bounded_share_of_the_time():
    """A forward pass costs about half of a training step with as many examples."""
    lengths = choose_lengths(SearchFidelity(), n_train=[10_000], batch_size=16, steps=600)
    for steps in (100, 180, 600):
        assert lengths.n_validation(steps) / 2 <= 0.15 * steps * 16 + 1
    assert lengths.n_validation(1) == 200
