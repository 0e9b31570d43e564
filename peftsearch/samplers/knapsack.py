"""The worth of a design by scores of its (block, method) pairs, and the best use of a budget by them.

A block whose methods have n_m parameters and scores s_m is worth (sum_m s_m n_m)^(3/4), a design the sum of its blocks.
This makes the methods of a block substitutes, and the first parameters of a block worth more than the last. The scores
come from `peftsearch.engine.saliency`.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping

from peftsearch.backbone.anatomy import Backbone
from peftsearch.design.architecture import Architecture
from peftsearch.design.budget import Budget
from peftsearch.design.design import Design
from peftsearch.design.fitting import fit
from peftsearch.methods import get_method

Scores = Mapping[tuple[str, int, str], float]
"""Score of a method on a block, by stack, block and method."""
_POWER = 0.75


def predict(design: Design, backbone: Backbone, budget: Budget, scores: Scores) -> float:
    """The worth of a design under a budget, which ranks designs and has no unit.

    Raises:
        BudgetError: The design does not fit.
    """
    return worth(fit(design, backbone, budget), scores)


def worth(architecture: Architecture, scores: Scores) -> float:
    """The sum over blocks of the scored parameters to the power 3/4; pairs without a score are worth nothing."""
    blocks: dict[tuple[str, int], float] = {}
    for p in architecture.placements:
        where = (p.stack, p.block)
        blocks[where] = blocks.get(where, 0.0) + scores.get((p.stack, p.block, p.method), 0.0) * p.n_params
    return sum(float(value**_POWER) for value in blocks.values())


def fill(scores: Scores, backbone: Backbone, budget: Budget) -> dict[tuple[str, int, str], int]:
    """Spend a budget on pairs of block and method, regardless of the designs of a space.

    Greedy, size by size, by the worth per parameter that the next size adds: since the worth is concave, this is the
    optimum of the continuous knapsack, rounded to whole sizes.

    Args:
        scores: Scores of all pairs; pairs with a score of 0 or less get nothing.
        backbone: The backbone whose blocks give the costs of sizes.
        budget: The most parameters.

    Returns:
        Number of parameters of each pair that gets any.
    """
    blocks = {(block.stack, block.index): block for block in backbone.blocks}
    scored = dict.fromkeys(blocks, 0.0)
    sizes = {pair: 0 for pair, score in scores.items() if score > 0}
    spent: dict[tuple[str, int, str], int] = {}

    def step(pair: tuple[str, int, str]) -> tuple[float, int]:
        """Worth per parameter of the next size (negated for the heap), and that size's cost; 0 at the largest size."""
        method, block = get_method(pair[2]), blocks[pair[:2]]
        if sizes[pair] == method.max_size(block):
            return 0.0, 0
        cost = method.count(block, sizes[pair] + 1) - spent.get(pair, 0)
        before = scored[pair[:2]]
        return -((before + scores[pair] * cost) ** _POWER - before**_POWER) / cost, cost

    heap = [(step(pair)[0], pair) for pair in sizes]
    heapq.heapify(heap)
    left = budget.n_params
    while heap:
        _, pair = heapq.heappop(heap)
        gain, cost = step(pair)
        if not 0 < cost <= left:
            continue
        if heap and gain > heap[0][0]:  # outdated: its block has grown since, and another pair is better now
            heapq.heappush(heap, (gain, pair))
            continue
        left -= cost
        sizes[pair] += 1
        spent[pair] = spent.get(pair, 0) + cost
        scored[pair[:2]] += scores[pair] * cost
        heapq.heappush(heap, (step(pair)[0], pair))
    return spent
