"""The space of AutoPEFT: its size, its points, its neighbours and its cheapest design, by enumeration."""

from itertools import product

import optuna
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from peftsearch.design.autopeft_space import AutoPeftSpace
from peftsearch.design.budget import Budget
from peftsearch.design.design import Design
from peftsearch.design.feasibility import feasibility, require_a_fit
from peftsearch.design.fitting import fit, smallest_budget
from peftsearch.design.space import load_space
from peftsearch.errors import BudgetError, ConfigError, MethodError
from peftsearch.samplers import SAMPLERS, SamplerContext, make_sampler
from tests.anatomies import bert_like

TINY = AutoPeftSpace.from_dict(
    "tiny", {"blocks": 3, "sizes": {"adapter_pfeiffer": [0, 2, 5], "prefix": [0, 1], "adapter_parallel": [4, 1]}}
)
MINILM = bert_like()
BOUND = load_space("autopeft").bound_to(6, ("lora", "adapter_pfeiffer", "adapter_parallel", "prefix"))


def points(space):
    names = [d.name for d in space.dimensions]
    return [dict(zip(names, choices, strict=True)) for choices in product(*(d.choices for d in space.dimensions))]


def of(n_params):
    return Budget(text=str(n_params), n_params=n_params, n_backbone=MINILM.n_params)


@pytest.mark.parametrize("sizes", [{"lora": [0, 2], "prefix": [0, 1, 3]}, {"lora": [0, 1], "prefix": [2, 1]}])
def test_n_designs_is_what_enumeration_counts(sizes):
    space = AutoPeftSpace.from_dict("tiny", {"blocks": 3, "sizes": sizes})
    designs = [space.design(p) for p in points(space)]
    assert space.n_designs == len({d.key for d in designs if d.tunable})


def test_the_shipped_space_has_the_papers_choices():
    space = load_space("autopeft")
    assert space.n_designs == (2**12 - 1) * (9**3 - 1)
    for sizes in dict(space.sizes).values():  # 2301.12132 sec. 3.1: d / 2^k of BERT-base, rounded down, and 0
        assert set(sizes) == {0} | {768 // 2**k for k in range(2, 10)}


def test_params_and_design_are_inverse():
    for point in points(TINY):
        design = TINY.design(point)
        if design.tunable:
            assert TINY.params(design) == point
            assert Design.from_dict(yaml.safe_load(yaml.safe_dump(design.to_dict()))) == design
        else:
            assert TINY.params(design) is None
            assert smallest_budget(design, bert_like(n_blocks=3)) == 0


def test_designs_of_other_kinds_have_no_params():
    uniform = Design(grouping="uniform", allocation=(1.0,) * 6, methods=(("prefix",),) * 6)
    assert BOUND.params(uniform) is None, "its sizes depend on the budget"
    mixed = Design(
        grouping="uniform", allocation=(1.0,) * 6, methods=(("prefix",),) * 5 + (("lora",),),
        sizes=(("lora", 1), ("prefix", 1)),
    )  # fmt: skip
    assert BOUND.params(mixed) is None


@given(st.data())
def test_a_design_becomes_its_sizes_on_its_blocks(data):
    point = {d.name: data.draw(st.sampled_from(d.choices)) for d in BOUND.dimensions}
    design = BOUND.design(point)
    placements = fit(design, MINILM, of(10**9)).placements
    expected = {
        (i, m): int(point[f"size.{m}"])
        for i in range(6) for m in BOUND.methods if point[f"block.{i}"] == "on" and point[f"size.{m}"] != "0"
    }  # fmt: skip
    assert {(p.block, p.method): p.size for p in placements} == expected


def test_neighbours_are_the_designs_one_step_away():
    def distance(a, b):
        """Steps between two points: a switch is one, a size as many as places lie between."""
        return sum(abs(d.choices.index(a[d.name]) - d.choices.index(b[d.name])) for d in TINY.dimensions)

    everything = points(TINY)
    for point in everything:
        wanted = [p for p in everything if distance(p, point) == 1 and TINY.design(p).tunable]
        found = TINY.neighbours(point)
        assert sorted(map(str, map(sorted, map(dict.items, found)))) == sorted(
            map(str, map(sorted, map(dict.items, wanted)))
        )


@pytest.mark.parametrize("space", [TINY, load_space("uniform"), load_space("lora")])
def test_the_cheapest_design_is_found(space):
    backbone = bert_like(n_blocks=4 if space.name == "lora" else 3)
    bound = space.bound_to(len(backbone.blocks), ("lora", "adapter", "adapter_pfeiffer", "adapter_parallel", "prefix"))
    costs = [smallest_budget(bound.design(p), backbone) for p in points(bound)]
    cheapest = min(c for c in costs if c)
    require_a_fit(bound, backbone, of(cheapest))
    with pytest.raises(BudgetError, match=f"the smallest needs {cheapest:,} ") as caught:
        require_a_fit(bound, backbone, of(cheapest - 1))
    assert caught.value.smallest == cheapest


def test_sizes_wider_than_a_block_are_infeasible():
    narrow = bert_like(d=24, d_ff=48)
    feasible = feasibility(narrow, of(10**9))
    point = {d.name: "on" if d.name.startswith("block") else "0" for d in BOUND.dimensions}
    assert feasible(BOUND.design(point | {"size.adapter_parallel": "24"}))
    assert not feasible(BOUND.design(point | {"size.adapter_parallel": "48"}))
    wide = AutoPeftSpace.from_dict("wide", {"sizes": {"adapter_parallel": [0, 48]}}).bound_to(6, ("adapter_parallel",))
    with pytest.raises(MethodError, match=r"space wide: none of its designs fits .* width 48 is outside 1 to 24"):
        require_a_fit(wide, narrow, of(10**9))


@pytest.mark.parametrize("name", sorted(SAMPLERS))
@pytest.mark.slow
def test_every_sampler_runs_on_it(name):
    """At 0.1%, where few designs fit, and far from the large ones that the made-up score rewards."""
    n_trials, settings = (12, {"n_startup_trials": 6}) if name == "gp" else (20, {})  # gp costs a fit a trial
    settings |= {"portfolio": ["lora"]} if name == "race" else {}
    budget = of(22_713)
    feasible = feasibility(MINILM, budget)
    context = SamplerContext(
        space=BOUND,
        n_trials=n_trials,
        seed=0,
        feasible=feasible,
        identity=lambda d: fit(d, MINILM, budget),
        backbone=MINILM,
        budget=budget,
        sensitivity=lambda: {("encoder", i, m): 1.0 + i for i in range(6) for m in BOUND.methods},
    )
    study = optuna.create_study(direction="maximize", sampler=make_sampler(name, context, settings))
    while len(study.trials) < n_trials and not getattr(study.sampler, "exhausted", lambda trials: False)(study.trials):
        trial = study.ask(context.distributions)
        design = BOUND.design(trial.params)
        assert feasible(design)
        study.tell(trial, sum(map(bool, design.methods[3:])) + 0.01 * dict(design.sizes).get("prefix", 0))
    assert len({BOUND.design(t.params) for t in study.trials}) >= 0.75 * n_trials
    if name == "s4":
        assert {r.name: r.chosen for r in study.sampler.decisions(study.trials)}["block.5"] == "on"


def test_bound_to_a_backbone():
    assert [d.name for d in BOUND.dimensions] == [
        *(f"block.{i}" for i in range(6)), "size.adapter_pfeiffer", "size.adapter_parallel", "size.prefix",
    ]  # fmt: skip
    assert load_space("autopeft").bound_to(30, ("prefix",)).methods == ("prefix",)
    with pytest.raises(ConfigError, match=r"space autopeft: none of its methods \(adapter_pfeiffer,"):
        load_space("autopeft").bound_to(6, ("lora",))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({}, "'sizes' is missing"),
        ({"sizes": {}}, "'sizes' must name at least one method"),
        ({"sizes": {"lora": 4}}, "must map names of methods to lists of sizes, got lora: 4"),
        ({"sizes": {"lora": [0]}}, "lora needs a size above 0"),
        ({"sizes": {"lora": [0, -1]}}, "must be at least 0"),
        ({"sizes": {"lora": [1, 1]}}, "holds a value twice"),
        ({"sizes": {"lora": [1]}, "blocks": 0}, "must be at least 1"),
        ({"sizes": {"lora": [1]}, "blocks": 10**6}, "at most 1,000"),
        ({"sizes": {"lora": [1]}, "block": 3}, "did you mean 'blocks'"),
    ],
)
def test_refused(data, message):
    with pytest.raises(ConfigError, match=message):
        AutoPeftSpace.from_dict("bad", data)


def test_kinds(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"kind": "autopeft", "sizes": {"lora": [0, 4]}}))
    assert load_space(str(path)) == AutoPeftSpace(name="mine", description="", blocks=12, sizes=(("lora", (0, 4)),))
    for kind in ("autopft", ["autopeft"], 3):
        path.write_text(yaml.safe_dump({"kind": kind, "sizes": {"lora": [0, 4]}}))
        with pytest.raises(ConfigError, match="space mine: unknown kind"):
            load_space(str(path))
