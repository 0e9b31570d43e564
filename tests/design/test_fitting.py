from dataclasses import replace
from itertools import pairwise

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from peftsearch.design.architecture import Architecture
from peftsearch.design.baselines import S4_PAPER, baselines_of
from peftsearch.design.budget import Budget, parse_budget
from peftsearch.design.design import Design
from peftsearch.design.fitting import fit, smallest_budget
from peftsearch.design.grouping import GROUPINGS, group_of_blocks, group_sizes
from peftsearch.design.space import ALLOCATIONS, allocation_weights, load_space
from peftsearch.design.text import design_line
from peftsearch.errors import BudgetError, ConfigError, MethodError
from peftsearch.methods import METHODS
from tests.anatomies import bert_like
from tests.tiny import outline

MINILM = bert_like()
METHOD_NAMES = ("lora", "adapter", "prefix", "bitfit")


def of(n_params, backbone=MINILM):
    return Budget(text=str(n_params), n_params=n_params, n_backbone=backbone.n_params)


def uniform(*methods, n_groups=4):
    return Design(grouping="uniform", allocation=(1.0,) * n_groups, methods=(methods,) * n_groups)


@st.composite
def designs(draw):
    groups = draw(st.lists(st.sets(st.sampled_from(METHOD_NAMES)), min_size=4, max_size=4).filter(lambda g: any(g)))
    return Design(
        grouping=draw(st.sampled_from(GROUPINGS)),
        allocation=allocation_weights(draw(st.sampled_from(ALLOCATIONS)), 4),
        methods=tuple(tuple(sorted(g)) for g in groups),
        leave_out=draw(st.booleans()),
    )


@given(designs(), st.integers(1, 3_000_000))
@settings(deadline=None)
def test_never_above_the_budget_exact_and_deterministic(design, n_params):
    smallest = smallest_budget(design, MINILM)
    if smallest > n_params:
        with pytest.raises(BudgetError) as caught:
            fit(design, MINILM, of(n_params))
        assert caught.value.smallest == smallest
        return
    architecture = fit(design, MINILM, of(n_params))
    assert architecture.n_params <= n_params
    blocks = {b.index: b for b in MINILM.blocks}
    for p in architecture.placements:
        assert p.n_params == METHODS[p.method].count(blocks[p.block], p.size)
    assert fit(design, MINILM, of(n_params)) == architecture
    assert Architecture.from_dict(architecture.to_dict()) == architecture


@given(designs(), st.integers(0, 200_000), st.integers(0, 20_000))
@settings(deadline=None, max_examples=200)
def test_a_larger_budget_never_gives_fewer_parameters(design, extra, more):
    smallest = smallest_budget(design, MINILM)
    low = fit(design, MINILM, of(smallest + extra)).n_params
    high = fit(design, MINILM, of(smallest + extra + more)).n_params
    assert low <= high


@given(designs())
@settings(deadline=None)
def test_the_smallest_budget_is_the_smallest(design):
    smallest = smallest_budget(design, MINILM)
    assert fit(design, MINILM, of(smallest)).n_params == smallest
    with pytest.raises(BudgetError, match=f"at least {smallest:,} trainable"):
        fit(design, MINILM, of(smallest - 1))


@given(designs(), st.integers(30_000, 3_000_000))
@settings(deadline=None)
def test_what_is_left_is_less_than_one_more_step_of_any_linear_method(design, n_params):
    architecture = fit(design, MINILM, of(n_params))
    left = n_params - architecture.n_params
    block = MINILM.blocks[0]
    for p in architecture.placements:
        method = METHODS[p.method]
        if p.method != "bitfit" and p.size < method.max_size(block):
            assert method.count(block, p.size + 1) - p.n_params > left


@pytest.mark.parametrize("method", ["lora", "adapter", "prefix"])
@pytest.mark.parametrize("allocation", ALLOCATIONS)
def test_parameters_of_blocks_follow_the_allocation(method, allocation):
    """With room enough for whole sizes, n_i is non-decreasing, equal or non-increasing to within one step."""
    design = Design(grouping="spindle", allocation=allocation_weights(allocation, 4), methods=((method,),) * 4)
    architecture = fit(design, MINILM, of(1_500_000 if method != "prefix" else 400_000))
    per_block = [p.n_params for p in architecture.placements]
    m = METHODS[method]
    step = m.count(MINILM.blocks[0], 2) - m.count(MINILM.blocks[0], 1)
    sign = {"increasing": 1, "uniform": 0, "decreasing": -1}[allocation]
    for a, b in pairwise(per_block):
        assert sign * (b - a) >= -step
        if sign == 0:
            assert abs(b - a) <= step
    groups = [sum(per_block[:1]) / 1, sum(per_block[1:3]) / 2, sum(per_block[3:5]) / 2, per_block[5]]
    weights = allocation_weights(allocation, 4)
    for n, weight in zip(groups, weights, strict=True):
        assert n == pytest.approx(sum(per_block) * weight / (weights @ SIZES), abs=2 * step)


class _Dot(tuple):
    """(1, 2, 2, 1) blocks of the spindle on six blocks; `weights @ SIZES` is their scalar product."""

    def __rmatmul__(self, weights):
        return sum(w * n for w, n in zip(weights, self, strict=True))


SIZES = _Dot(group_sizes("spindle", 6))


def test_bitfit_takes_the_largest_subset_that_fits_its_share():
    names = [
        METHODS["bitfit"].label(MINILM.blocks[0], p.size) for p in fit(uniform("bitfit"), MINILM, of(22_713)).placements
    ]
    assert "all" in names[-1] or "ffn_in" in names[-1]
    assert fit(uniform("bitfit"), MINILM, of(6 * 4224)).n_params == 6 * 4224  # 11 d + d_ff biases a block, all of them
    assert fit(uniform("bitfit"), MINILM, of(6 * 4224 - 1)).n_params < 6 * 4224


def test_a_tenth_of_a_percent_holds_the_baselines_and_uses_most_of_it():
    budget = parse_budget("0.1%", MINILM.n_params)
    used = {}
    for baseline in baselines_of(load_space("s4"), MINILM):
        if smallest_budget(baseline.design, MINILM) <= budget.n_params:
            used[baseline.name] = fit(baseline.design, MINILM, budget).n_params / budget.n_params
    assert set(used) == {"head", "lora", "ia3", "layernorm", "adapter", "bitfit", "prefix", "krona", "s4-paper"}
    assert used.pop("head") == 0
    assert (used.pop("layernorm"), used.pop("ia3")) == (9_216 / 22_713, 13_824 / 22_713)  # all that they have
    assert min(used.values()) > 0.85


def test_blocks_are_left_out_from_the_input_side_until_the_rest_fits():
    """LoRA on the feed-forward maps of MiniLM has 3,840 parameters a block at rank 1."""
    design = replace(uniform("lora:ffn"), leave_out=True)
    assert smallest_budget(design, MINILM) == 3_840
    for budget, n_blocks in ((3_840, 1), (7_679, 1), (7_680, 2), (22_713, 5), (23_040, 6)):
        architecture = fit(design, MINILM, of(budget))
        assert [p.block for p in architecture.placements] == [*range(6)][-n_blocks:]
    with pytest.raises(BudgetError, match="needs at least 3,840"):
        fit(design, MINILM, of(3_839))
    with pytest.raises(BudgetError, match="needs at least 23,040"):
        fit(uniform("lora:ffn"), MINILM, of(22_713))
    untuned_top = replace(design, methods=(("lora:ffn",), ("lora:ffn",), (), ()))
    assert [p.block for p in fit(untuned_top, MINILM, of(3_840)).placements] == [2]


def test_one_block_and_many():
    design = uniform("lora", n_groups=1)
    assert fit(design, bert_like(n_blocks=1), of(2_000)).placements[0].size == 1
    assert len(fit(S4_PAPER, bert_like(n_blocks=30), of(200_000)).placements) > 60


def test_groups_span_both_stacks_of_an_encoder_decoder():
    """The S4 paper's design on BART: the last groups are the decoder's, whose cross-attention is counted too."""
    backbone = outline("bart")
    architecture = fit(S4_PAPER, backbone, of(8_000, backbone))
    found = {}
    for p in architecture.placements:
        found.setdefault((p.stack, p.block), set()).add(p.method)
    blocks = [("encoder", 0), ("encoder", 1), ("decoder", 0), ("decoder", 1)]
    assert found == {block: set(methods) for block, methods in zip(blocks, S4_PAPER.methods, strict=True)}
    encoder, decoder = backbone.blocks[0], backbone.blocks[-1]
    assert METHODS["lora"].count(encoder, 1) == 2 * (32 + 32)
    assert [METHODS[name].count(decoder, 1) / METHODS[name].count(encoder, 1) for name in ("lora", "prefix")] == [2, 2]


def test_refused():
    with pytest.raises(MethodError, match="did you mean 'lora'"):
        fit(uniform("lorra"), MINILM, of(10**6))
    with pytest.raises(MethodError, match="bitfit"):
        fit(uniform("bitfit"), bert_like(bias=False), of(10**6))
    with pytest.raises(ConfigError, match="at least 4 blocks"):
        fit(uniform("lora"), bert_like(n_blocks=3), of(10**6))


@st.composite
def fixed_designs(draw):
    """Designs that say their sizes."""
    design = draw(designs())
    used = sorted({m for group in design.methods for m in group})
    sizes = tuple((m, draw(st.integers(1, METHODS[m].max_size(MINILM.blocks[0])))) for m in used)
    return replace(design, sizes=sizes, leave_out=False)


@given(fixed_designs(), st.integers(0, 10**6))
@settings(deadline=None, max_examples=50)
def test_fixed_sizes_are_taken_exactly_whatever_the_budget(design, extra):
    blocks = {b.index: b for b in MINILM.blocks}
    groups = group_of_blocks(design.grouping, len(MINILM.blocks), 4)
    wanted = {(i, m): dict(design.sizes)[m] for i, group in enumerate(groups) for m in design.methods[group]}
    cost = sum(METHODS[m].count(blocks[i], size) for (i, m), size in wanted.items())
    assert smallest_budget(design, MINILM) == cost
    architecture = fit(design, MINILM, of(cost + extra))
    assert {(p.block, p.method): p.size for p in architecture.placements} == wanted
    assert architecture.n_params == cost
    with pytest.raises(BudgetError, match=f"at least {cost:,} trainable") as caught:
        fit(design, MINILM, of(cost - 1))
    assert caught.value.smallest == cost


@given(designs() | fixed_designs(), st.integers(1, 1000), st.integers(0, 3_000_000))
@settings(deadline=None, max_examples=50)
def test_a_share_of_the_budget_is_never_exceeded_and_its_smallest_budget_is_the_smallest(design, mils, extra):
    shared = replace(design, budget_share=mils / 1000)
    smallest = smallest_budget(shared, MINILM)
    needed = smallest_budget(design, MINILM)
    assert smallest * mils // 1000 >= needed > (smallest - 1) * mils // 1000
    assert fit(shared, MINILM, of(smallest)).n_params <= smallest * mils // 1000
    with pytest.raises(BudgetError) as caught:
        fit(shared, MINILM, of(smallest - 1))
    assert caught.value.smallest == smallest
    budget = smallest + extra
    assert fit(shared, MINILM, of(budget)) == fit(design, MINILM, of(budget * mils // 1000))


def test_a_share_that_no_float_holds_takes_no_parameter_away():
    design = Design(grouping="uniform", allocation=(1.0,), methods=(("lora",),), budget_share=0.3)
    needed = smallest_budget(replace(design, budget_share=1.0), MINILM)
    budget = needed * 10 // 3
    assert needed % 3 == 0
    assert fit(design, MINILM, of(budget)).n_params == needed == smallest_budget(design, MINILM) * 3 // 10


def test_fixed_sizes_refused():
    with pytest.raises(MethodError, match=r"adapter: width 385 is outside 1 to 384 on layer\.0"):
        fit(replace(uniform("adapter"), sizes=(("adapter", 385),)), MINILM, of(10**7))
    with pytest.raises(ConfigError, match="its sizes lack 'lora'; fix the sizes of all methods or of none"):
        fit(replace(uniform("adapter", "lora"), sizes=(("adapter", 3),)), MINILM, of(10**7))
    for wrong in ({"sizes": {"lora": 0}}, {"budget_share": 0.0}, {"budget_share": 1.5}, {"sizes": ["lora"]}):
        with pytest.raises(ConfigError, match="design: "):
            Design.from_dict(uniform("lora").to_dict() | wrong)


@given(fixed_designs(), st.integers(1, 1000))
def test_designs_with_sizes_and_shares_survive_a_file(design, mils):
    shared = replace(design, budget_share=mils / 1000)
    assert Design.from_dict(yaml.safe_load(yaml.safe_dump(shared.to_dict()))) == shared
    turned = replace(shared, sizes=tuple(reversed(shared.sizes)))
    assert (turned, turned.key) == (shared, shared.key)
    assert not {"sizes", "budget_share"} & set(replace(shared, sizes=(), budget_share=1.0).to_dict())


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"budget_share": 0.125}, "lora on all blocks, 12.5% of the budget"),
        ({"sizes": (("lora", 4),)}, "lora 4 on all blocks"),
        (
            {"methods": ((), ("lora", "adapter"), (), ("lora", "adapter")), "sizes": (("lora", 4), ("adapter", 8))},
            "lora 4 + adapter 8 in G2 G4 of 4 groups",
        ),
        (
            {"methods": ((), ("lora",), (), ("adapter",)), "sizes": (("lora", 4), ("adapter", 8))},
            "uniform, uniform: G1 - | G2 lora 4 | G3 - | G4 adapter 8",
        ),
    ],
)
def test_sizes_and_shares_are_told(changes, line):
    assert design_line(replace(uniform("lora"), **changes)) == line
