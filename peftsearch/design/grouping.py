"""Groupings of consecutive blocks (arXiv 2301.01821, sec. 3.1): five patterns for any number of blocks.

With N_i blocks in group i the paper names five patterns for four groups: increasing N_1 < N_2 < N_3 < N_4; uniform,
all equal; decreasing, the reverse of increasing; spindle N_1 < N_2 = N_3 > N_4; bottleneck N_1 > N_2 = N_3 < N_4.

The inequalities leave many sizes open, and small or odd numbers of blocks cannot meet them all. The rule here:
of all sizes that meet the pattern, take those nearest (least squares) to its ramp (increasing 1:2:3:4,
spindle 1:2:2:1, bottleneck 2:1:1:2), ties to the lexicographically smallest. Where no sizes meet the pattern,
first `=` may be off by one, then `<` may be `<=`. Uniform gives surplus blocks to groups spread evenly from
the first (6 blocks: 2, 1, 2, 1). Every group has at least one block.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import product

from peftsearch.errors import ConfigError, unknown_name

GROUPINGS = ("increasing", "uniform", "decreasing", "spindle", "bottleneck")


@lru_cache(maxsize=1024)
def group_sizes(grouping: str, n_blocks: int, n_groups: int = 4) -> tuple[int, ...]:
    """Number of blocks in each group, input side first.

    Args:
        grouping: One of `GROUPINGS`.
        n_blocks: Number of blocks, at least `n_groups`.
        n_groups: Number of groups.

    Returns:
        `n_groups` positive numbers that sum to `n_blocks`.

    Raises:
        ConfigError: The pattern is unknown or there are fewer blocks than groups.
    """
    if grouping not in GROUPINGS:
        raise ConfigError(unknown_name("grouping", grouping, GROUPINGS))
    if n_blocks < n_groups:
        raise ConfigError(
            f"{n_groups} groups need at least {n_groups} blocks and the backbone has {n_blocks}; "
            "use a space with fewer groups, such as --space uniform"
        )
    if grouping == "uniform":
        return _uniform(n_blocks, n_groups)
    if grouping == "decreasing":
        return tuple(reversed(group_sizes("increasing", n_blocks, n_groups)))
    ramp = _ramp(grouping, n_groups)
    ideal = [n_blocks * weight / sum(ramp) for weight in ramp]
    for equal_slack, order_slack in ((0, 0), (1, 0), (1, 1)):
        fitting = [s for s in _near(ideal, n_blocks) if _meets(s, ramp, equal_slack, order_slack)]
        if fitting:
            return min(fitting, key=lambda s: (round(sum((a - b) ** 2 for a, b in zip(s, ideal, strict=True)), 9), s))
    return _uniform(n_blocks, n_groups)


def group_of_blocks(grouping: str, n_blocks: int, n_groups: int = 4) -> tuple[int, ...]:
    """The group, from 0, of every block, input side first."""
    return tuple(group for group, size in enumerate(group_sizes(grouping, n_blocks, n_groups)) for _ in range(size))


def distinct_groupings(groupings: tuple[str, ...], n_blocks: int, n_groups: int = 4) -> tuple[str, ...]:
    """The patterns that differ at this depth; of patterns with equal sizes only the first is kept."""
    first: dict[tuple[int, ...], str] = {}
    for grouping in groupings:
        first.setdefault(group_sizes(grouping, n_blocks, n_groups), grouping)
    return tuple(first.values())


def _uniform(n_blocks: int, n_groups: int) -> tuple[int, ...]:
    base, rest = divmod(n_blocks, n_groups)
    longer = {i * n_groups // rest for i in range(rest)} if rest else set()
    return tuple(base + (i in longer) for i in range(n_groups))


def _ramp(grouping: str, n_groups: int) -> tuple[int, ...]:
    if grouping == "increasing":
        return tuple(range(1, n_groups + 1))
    spindle = tuple(min(i, n_groups - 1 - i) + 1 for i in range(n_groups))
    return spindle if grouping == "spindle" else tuple(max(spindle) + 1 - weight for weight in spindle)


def _near(ideal: list[float], n_blocks: int) -> Iterator[tuple[int, ...]]:
    """All sizes within three blocks of the ideal that sum to `n_blocks`."""
    windows = [range(max(1, int(x) - 2), int(x) + 4) for x in ideal[:-1]]
    for head in product(*windows):
        if (last := n_blocks - sum(head)) >= 1:
            yield (*head, last)


def _meets(sizes: tuple[int, ...], ramp: tuple[int, ...], equal_slack: int, order_slack: int) -> bool:
    """Whether neighbouring sizes are ordered as in the ramp, within the slacks."""
    for a, b, x, y in zip(sizes, sizes[1:], ramp, ramp[1:], strict=False):
        if x == y and abs(a - b) > equal_slack:
            return False
        if x < y and not a < b + order_slack:
            return False
        if x > y and not a + order_slack > b:
            return False
    return True
