from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peftsearch.design.grouping import GROUPINGS, distinct_groupings, group_of_blocks, group_sizes
from peftsearch.errors import ConfigError

# arXiv 2301.01821, sec. 3.1, for four groups
PAPER = {
    "increasing": lambda a, b, c, d: a < b < c < d,
    "uniform": lambda a, b, c, d: a == b == c == d,
    "decreasing": lambda a, b, c, d: a > b > c > d,
    "spindle": lambda a, b, c, d: a < b == c > d,
    "bottleneck": lambda a, b, c, d: a > b == c < d,
}


@pytest.mark.parametrize("n_blocks", range(4, 49))
@pytest.mark.parametrize("grouping", GROUPINGS)
def test_the_papers_inequalities_hold_wherever_any_sizes_meet_them(grouping, n_blocks):
    sizes = group_sizes(grouping, n_blocks)
    assert sum(sizes) == n_blocks
    assert min(sizes) >= 1
    some = range(1, min(n_blocks, 14))
    possible = any(
        n_blocks - a - b - c >= 1 and PAPER[grouping](a, b, c, n_blocks - a - b - c)
        for a, b, c in product(some, repeat=3)
    )
    if possible:
        assert PAPER[grouping](*sizes)


@pytest.mark.parametrize(
    ("grouping", "n_blocks", "sizes"),
    [
        ("increasing", 6, (1, 1, 2, 2)),
        ("uniform", 6, (2, 1, 2, 1)),
        ("decreasing", 6, (2, 2, 1, 1)),
        ("spindle", 6, (1, 2, 2, 1)),
        ("bottleneck", 6, (2, 1, 1, 2)),
        ("increasing", 12, (1, 2, 4, 5)),
        ("uniform", 12, (3, 3, 3, 3)),
        ("spindle", 12, (2, 4, 4, 2)),
        ("bottleneck", 12, (4, 2, 2, 4)),
        ("increasing", 24, (2, 5, 7, 10)),
        ("spindle", 24, (4, 8, 8, 4)),
        ("increasing", 30, (3, 6, 9, 12)),
        ("spindle", 30, (5, 10, 10, 5)),
        ("spindle", 4, (1, 1, 1, 1)),
    ],
)
def test_sizes_of_common_depths(grouping, n_blocks, sizes):
    assert group_sizes(grouping, n_blocks) == sizes


def test_six_blocks_tell_all_five_apart():
    assert distinct_groupings(GROUPINGS, 6) == GROUPINGS


def test_four_blocks_tell_none_apart():
    assert distinct_groupings(GROUPINGS, 4) == ("increasing",)


@given(st.sampled_from(GROUPINGS), st.integers(1, 8), st.integers(0, 60))
def test_any_number_of_groups(grouping, n_groups, extra):
    sizes = group_sizes(grouping, n_groups + extra, n_groups)
    assert sum(sizes) == n_groups + extra
    assert len(sizes) == n_groups
    assert min(sizes) >= 1


def test_group_of_blocks():
    assert group_of_blocks("spindle", 6) == (0, 1, 1, 2, 2, 3)


def test_refused():
    with pytest.raises(ConfigError, match="at least 4 blocks and the backbone has 3"):
        group_sizes("uniform", 3)
    with pytest.raises(ConfigError, match="did you mean 'spindle'"):
        group_sizes("spindel", 12)
