"""Fronts, hypervolumes and knees against Optuna's implementation, brute force and closed forms."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna._hypervolume import compute_hypervolume
from optuna.study._multi_objective import _is_pareto_front

from peftsearch.report.pareto.arithmetic import hypervolume, knee, nondominated, reference_point, smallest_within

FEW = st.integers(-4, 4)


@st.composite
def objectives(draw, max_k=4, values=FEW):
    """Points with many ties and duplicates, and a direction for each objective."""
    k = draw(st.integers(1, max_k))
    points = draw(st.lists(st.tuples(*[values] * k), min_size=1, max_size=12))
    return np.array(points, dtype=float), draw(st.lists(st.booleans(), min_size=k, max_size=k))


def as_costs(points, maximise):
    return np.where(maximise, -1.0, 1.0) * points


class TestNondominated:
    @given(objectives())
    def test_is_what_the_definition_says(self, case):
        points, maximise = case
        costs = as_costs(points, maximise)
        expected = [not any((a <= b).all() and (a < b).any() for a in costs) for b in costs]
        assert nondominated(points, maximise).tolist() == expected

    @given(objectives(values=st.floats(-1e6, 1e6)))
    def test_agrees_with_optuna(self, case):
        points, maximise = case
        expected = _is_pareto_front(as_costs(points, maximise), assume_unique_lexsorted=False)
        assert nondominated(points, maximise).tolist() == expected.tolist()

    def test_of_nothing_is_nothing(self):
        assert nondominated(np.zeros((0, 2)), (True, False)).tolist() == []

    def test_refuses_what_is_not_finite(self):
        with pytest.raises(ValueError, match="finite"):
            nondominated([[np.nan, 1.0]], (True, False))


class TestHypervolume:
    @given(objectives(max_k=3), st.integers(-4, 5))
    def test_counts_the_unit_cubes_that_are_dominated(self, case, limit):
        """On whole numbers the volume is a number of unit cubes; points beyond the reference are among the cases."""
        points, maximise = case
        costs = as_costs(points, maximise)
        reference = np.where(maximise, -1.0, 1.0) * limit
        cubes = product(range(-4, limit), repeat=len(maximise))
        expected = sum(any((costs[i] <= cube).all() for i in range(len(costs))) for cube in map(np.array, cubes))
        assert hypervolume(points, reference, maximise) == pytest.approx(expected)

    @given(objectives(values=st.floats(-100, 100)))
    def test_agrees_with_optuna(self, case):
        points, maximise = case
        reference = reference_point(points, maximise)
        expected = compute_hypervolume(as_costs(points, maximise), as_costs(reference, maximise))
        assert hypervolume(points, reference, maximise) == pytest.approx(expected, rel=1e-9, abs=1e-12)

    def test_of_one_point_is_a_box(self):
        assert hypervolume([[0.9, 100.0]], (0.5, 300.0), (True, False)) == pytest.approx(0.4 * 200)
        assert hypervolume([[0.4, 100.0]], (0.5, 300.0), (True, False)) == 0.0


class TestReferencePoint:
    @given(objectives(values=st.integers(-1000, 1000)))
    def test_is_worse_than_every_point(self, case):
        points, maximise = case
        reference = as_costs(reference_point(points, maximise), maximise)
        assert (as_costs(points, maximise) < reference).all()

    def test_lies_a_tenth_of_the_range_beyond(self):
        assert reference_point([[0.5, 10], [1.0, 20]], (True, False)).tolist() == pytest.approx([0.45, 21])
        assert reference_point([[0.0, 10]], (True, False)).tolist() == pytest.approx([-1, 11])


fronts = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), min_size=1, max_size=10)


class TestKnee:
    def test_of_a_bent_line_is_the_bend(self):
        found = knee([1, 2, 3, 4, 5], [0.5, 0.8, 0.85, 0.9, 0.95])
        assert found.index == 1
        assert found.height == pytest.approx((2 / 3 - 1 / 4) / np.sqrt(2))

    @pytest.mark.parametrize(
        ("costs", "scores"),
        [
            ([1], [0.5]),
            ([1, 2], [0.5, 0.6]),
            ([1, 2, 3], [0.5, 0.6, 0.7]),  # straight
            ([1, 2, 3], [0.5, 0.51, 0.7]),  # below the chord
            ([1, 2, 3], [0.7, 0.6, 0.5]),  # a front of one point
            ([1, 1, 1], [0.5, 0.5, 0.5]),
        ],
    )
    def test_there_is_none_without_a_point_above_the_chord(self, costs, scores):
        assert knee(costs, scores) is None

    @given(fronts)
    def test_is_on_the_front_and_the_farthest_from_the_chord(self, points):
        """The distance to the line through the two ends, by the cross product instead of the difference."""
        costs, scores = np.array(points, dtype=float).T
        found = knee(costs, scores)
        mask = nondominated(np.array(points, dtype=float), (False, True))
        if found is None:
            return
        assert mask[found.index]
        front = np.array(points, dtype=float)[mask]
        low, high = front.min(axis=0), front.max(axis=0)
        scaled = (front - low) / (high - low)
        a, b = scaled[scaled[:, 0].argmin()], scaled[scaled[:, 0].argmax()]
        distances = [((b - a)[0] * (p - a)[1] - (b - a)[1] * (p - a)[0]) / np.linalg.norm(b - a) for p in scaled]
        assert found.height == pytest.approx(max(distances))

    @given(fronts, st.integers(-8, 8), st.integers(-8, 8), st.integers(-50, 50), st.integers(-50, 50))
    def test_does_not_depend_on_units_and_origins(self, points, i, j, a, b):
        costs, scores = np.array(points, dtype=float).T
        found, moved = knee(costs, scores), knee(costs * 2.0**i + a, scores * 2.0**j + b)
        assert (found is None) == (moved is None)
        if found is not None:
            assert moved.index == found.index
            assert moved.height == pytest.approx(found.height)

    @given(fronts)
    def test_a_dominated_point_changes_nothing(self, points):
        costs, scores = np.array(points, dtype=float).T
        worse = knee([*costs, costs.max() + 7], [*scores, scores.max()])
        assert worse == knee(costs, scores)


class TestSmallestWithin:
    def test_takes_the_cheapest_that_is_close(self):
        assert smallest_within([(1,), (2,), (3,)], [0.80, 0.89, 0.90], [0.02] * 3) == 1
        assert smallest_within([(1,), (2,), (3,)], [0.80, 0.89, 0.90], [0.001] * 3) == 2
        assert smallest_within([(1,), (2,), (3,)], [0.80, 0.89, 0.90], [0.2, 0.02, 0.0]) == 0

    def test_compares_the_budget_before_what_is_spent(self):
        assert smallest_within([(10, 9), (20, 1)], [0.9, 0.9], [0.0, 0.0]) == 0

    @given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=8))
    def test_without_error_it_is_the_cheapest_of_the_best(self, points):
        costs, scores = [(c,) for c, _ in points], [s for _, s in points]
        expected = min(c for c, s in points if s == max(scores))
        assert points[smallest_within(costs, scores, [0.0] * len(points))] == (expected, max(scores))
