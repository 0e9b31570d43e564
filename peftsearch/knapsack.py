"""What a design is worth by scores of its (block, method) pairs, and the best use of a budget by them.

A placement of n parameters on a block is worth score * sqrt(n): the first parameters of a method bring more than the
last, and for the rank of LoRA under its 1 / sqrt(r) scale this is the growth of the first-order decrease itself. The
scores come from `peftsearch.sensitivity`.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from math import sqrt

from peftsearch.architecture import Architecture, Design
from peftsearch.backbone.anatomy import Backbone
from peftsearch.budget import Budget
from peftsearch.fitting import fit
from peftsearch.methods import get_method

Scores = Mapping[tuple[str, int, str], float]
"""Score of a method on a block, by stack, block and method."""


def predict(design: Design, backbone: Backbone, budget: Budget, scores: Scores) -> float:
    """The worth of a design under a budget; it ranks designs and has no unit.

    Raises:
        BudgetError: The design does not fit.
    """
    return worth(fit(design, backbone, budget), scores)


def worth(architecture: Architecture, scores: Scores) -> float:
    """The sum over placements of score * sqrt(parameters); pairs without a score are worth nothing."""
    return sum(scores.get((p.stack, p.block, p.method), 0.0) * sqrt(p.n_params) for p in architecture.placements)


def fill(scores: Scores, backbone: Backbone, budget: Budget) -> dict[tuple[str, int, str], int]:
    """Spend a budget on the pairs of block and method, whatever designs there are.

    Greedy by worth for each parameter, size by size: for a worth that flattens this is the optimum of the continuous
    knapsack, rounded to whole sizes.

    Args:
        scores: Of all pairs; those of 0 or less get nothing.
        backbone: Its blocks give the costs of sizes.
        budget: The most parameters.

    Returns:
        Parameters of each pair that gets some.
    """
    blocks = {(block.stack, block.index): block for block in backbone.blocks}
    spent: dict[tuple[str, int, str], int] = {}
    heap: list[tuple[float, tuple[str, int, str], int, int]] = []

    def offer(pair: tuple[str, int, str], size: int) -> None:
        method, block = get_method(pair[2]), blocks[pair[:2]]
        if size <= method.max_size(block):
            before, after = spent.get(pair, 0), method.count(block, size)
            gain = scores[pair] * (sqrt(after) - sqrt(before))
            heapq.heappush(heap, (-gain / (after - before), pair, size, after - before))

    for pair in scores:
        if scores[pair] > 0:
            offer(pair, 1)
    left = budget.n_params
    while heap:
        _, pair, size, cost = heapq.heappop(heap)
        if cost <= left:
            left -= cost
            spent[pair] = spent.get(pair, 0) + cost
            offer(pair, size + 1)
    return spent
