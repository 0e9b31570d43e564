"""The worth of designs, and the knapsack against trying everything."""

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peftsearch.design.architecture import Architecture, Placement
from peftsearch.design.baselines import S4_PAPER
from peftsearch.design.budget import Budget, parse_budget
from peftsearch.design.fitting import fit
from peftsearch.errors import BudgetError
from peftsearch.methods import METHODS
from peftsearch.samplers.knapsack import fill, predict, worth
from tests.anatomies import bert_like

TINY = bert_like(n_blocks=2, d=24, d_ff=48, n_params=10_000)
PAIRS = [("encoder", block, method) for block in (0, 1) for method in ("lora", "prefix")]


def budget(n_params):
    return Budget(text=str(n_params), n_params=n_params, n_backbone=TINY.n_params)


def placed(spent):
    """Parameters of pairs as an architecture."""
    return Architecture(
        placements=tuple(Placement(stack=s, block=b, method=m, size=1, n_params=n) for (s, b, m), n in spent.items())
    )


def test_worth_by_hand():
    architecture = placed({("encoder", 0, "lora"): 10, ("encoder", 0, "prefix"): 6, ("encoder", 1, "lora"): 81})
    scores = {("encoder", 0, "lora"): 1.0, ("encoder", 0, "prefix"): 1.0, ("encoder", 1, "lora"): 1.0}
    assert worth(architecture, scores) == pytest.approx(8 + 27)  # 16^(3/4) and 81^(3/4)
    assert worth(architecture, {}) == 0.0


def test_predict_is_the_worth_of_the_fitted_design():
    backbone = bert_like()
    share, scores = parse_budget("0.2%", backbone.n_params), {("encoder", i, "lora"): 1.0 + i for i in range(6)}
    assert predict(S4_PAPER, backbone, share, scores) == worth(fit(S4_PAPER, backbone, share), scores) > 0
    with pytest.raises(BudgetError, match="needs at least"):
        predict(S4_PAPER, backbone, parse_budget("100", backbone.n_params), scores)


@settings(max_examples=30)
@given(scores=st.lists(st.floats(0.1, 3.0), min_size=4, max_size=4), n_params=st.integers(0, 700))
def test_the_knapsack_is_nearly_as_good_as_the_best_of_all(scores, n_params):
    """All sizes of two methods on two blocks; greedy may lose a rounding, never more than one step."""
    of = dict(zip(PAIRS, scores, strict=True))
    spent = fill(of, TINY, budget(n_params))
    assert sum(spent.values()) <= n_params
    for (_, block, method), n in spent.items():
        assert n in {METHODS[method].count(TINY.blocks[block], size) for size in range(1, 15)}
    costs = [[0, *(METHODS[m].count(TINY.blocks[b], s) for s in range(1, 15))] for _, b, m in PAIRS]
    choices = (c for c in product(*costs) if sum(c) <= n_params)
    best = max(worth(placed(dict(zip(PAIRS, c, strict=True))), of) for c in choices)
    step = max(worth(placed({pair: METHODS[pair[2]].count(TINY.blocks[pair[1]], 1)}), of) for pair in PAIRS)
    assert best - step <= worth(placed(spent), of) <= best + 1e-9


def test_pairs_without_a_score_get_nothing():
    scores = dict.fromkeys(PAIRS, 0.0) | {("encoder", 1, "prefix"): 1.0}
    assert set(fill(scores, TINY, budget(500))) == {("encoder", 1, "prefix")}


def test_a_pair_ends_at_its_largest_size():
    spent = fill({("encoder", 0, "bitfit"): 1.0}, TINY, budget(9_000))
    block = TINY.blocks[0]
    assert spent == {("encoder", 0, "bitfit"): METHODS["bitfit"].count(block, METHODS["bitfit"].max_size(block))}
