from dataclasses import replace
from itertools import product
from math import comb

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peftsearch.catalog import shipped
from peftsearch.design.baselines import S4_PAPER
from peftsearch.design.design import Design
from peftsearch.design.fitting import smallest_budget
from peftsearch.design.space import Dimension, SearchSpace, load_space
from peftsearch.errors import ConfigError
from peftsearch.methods import METHODS
from tests.anatomies import bert_like


def all_designs(space):
    names = [d.name for d in space.dimensions]
    for choices in product(*(d.choices for d in space.dimensions)):
        try:
            design = space.design(dict(zip(names, choices, strict=True)))
        except ValueError:
            continue
        if design.tunable:
            yield design


TINY = pytest.mark.parametrize(
    "data",
    [
        {"groups": 2, "groupings": ["uniform", "spindle"], "allocations": ["uniform"], "methods": ["lora", "bitfit"]},
        {
            "groups": 3,
            "groupings": ["uniform"],
            "allocations": ["increasing", "uniform"],
            "methods": ["lora", "adapter"],
        },
        {"groups": 2, "allocations": ["uniform"], "methods": ["lora", "prefix"], "tunable_groups": "all"},
        {"groups": 2, "allocations": ["uniform"], "methods": ["lora"], "learning_rates": [0.001, 0.01]},
        {"groups": 2, "groupings": ["uniform"], "ranks": [0, 1, 2, 4], "methods": ["lora"]},
        {
            "groups": 2,
            "groupings": ["uniform"],
            "allocations": ["uniform"],
            "methods": ["lora", "prefix", "adapter", "bitfit"],
            "max_methods_per_group": 2,
        },
        {
            "groups": 2,
            "groupings": ["uniform"],
            "allocations": ["uniform"],
            "methods": ["lora", "prefix"],
            "max_methods_per_group": 5,
            "budget_shares": [0.25, 1],
        },
        {"groups": 2, "groupings": ["uniform"], "ranks": [0, 1, 2], "methods": ["lora"], "budget_shares": [0.5, 1]},
    ],
)


@TINY
def test_n_designs_is_what_enumeration_counts(data):
    space = SearchSpace.from_dict("tiny", data)
    assert space.n_designs == len({d.key for d in all_designs(space)})


@TINY
def test_the_smallest_points_hold_the_cheapest_design(data):
    space = SearchSpace.from_dict("tiny", data)
    backbone = bert_like()
    costs = [smallest_budget(space.design(point), backbone) for point in space.smallest_points()]
    assert min(costs) == min(smallest_budget(design, backbone) for design in all_designs(space))


def test_the_size_of_the_papers_space():
    # 5 groupings x 3 allocations x ((15 subsets of four methods + untuned)^4 - 1)
    assert load_space("s4").n_designs == 5 * 3 * (16**4 - 1) == 983_025
    assert load_space("s4-lr").n_designs == 3 * 983_025
    assert load_space("uniform").n_designs == 15


@TINY
def test_neighbours_reach_every_design_of_a_space(data):
    """What the enumeration counts is what the changes reach: no design is out of reach, none is outside."""
    space = SearchSpace.from_dict("tiny", data)
    first = next(iter(all_designs(space)))
    reached, frontier = {first.key}, [space.params(first)]
    while frontier:
        for params in space.neighbours(frontier.pop()):
            if (key := space.design(params).key) not in reached:
                reached.add(key)
                frontier.append(params)
    assert reached == {d.key for d in all_designs(space)}


@pytest.mark.parametrize("name", sorted(shipped("search_spaces")))
@settings(max_examples=25)
@given(data=st.data())
def test_neighbours_are_other_designs_each_once_and_symmetric(name, data):
    space = load_space(name)
    if len(getattr(space, "methods", ())) > 6:  # sets of all methods are thousands: a few show the same
        space = space.bound_to(12, space.methods[::5])
    params = {d.name: data.draw(st.sampled_from(d.choices)) for d in space.dimensions}
    design = space.design(params)
    if not design.tunable:
        return
    near = space.neighbours(params)
    keys = [space.design(p).key for p in near]
    assert design.key not in keys
    assert len(set(keys)) == len(keys)
    for p in near:
        assert all(p[d.name] in d.choices for d in space.dimensions)
        assert space.design(p).tunable
    back = space.neighbours(data.draw(st.sampled_from(near)))
    assert design.key in {space.design(p).key for p in back}


def test_the_neighbours_of_a_design_by_hand():
    space = load_space("s4")
    near = {space.design(p) for p in space.neighbours(space.params(S4_PAPER))}
    assert len(near) == 4 + 2 + 4 + 4 * 4  # groupings, allocations, a group less, a method more or less in each group
    single = replace(S4_PAPER, methods=(("lora",), (), (), ()))
    near = {space.design(p).methods for p in space.neighbours(space.params(single))}
    assert (("adapter", "lora"), (), (), ()) in near
    assert (("lora",), ("adapter", "prefix", "bitfit", "lora"), (), ()) in near
    assert not any(len(methods[0]) == 0 for methods in near)
    ranks = load_space("lora").neighbours({"grouping": "uniform", **{f"rank.G{i}": "1" for i in range(1, 5)}})
    assert {p["rank.G1"] for p in ranks if p["rank.G2"] == p["rank.G3"] == p["rank.G4"] == "1"} == {"0", "1", "2"}


@pytest.mark.parametrize("name", sorted(shipped("search_spaces")))
@given(data=st.data())
def test_params_and_design_are_inverse(name, data):
    space = load_space(name)
    params = {d.name: data.draw(st.sampled_from(d.choices)) for d in space.dimensions}
    design = space.design(params)
    if design.tunable:
        found = space.params(design)
        assert found is not None
        assert space.design(found) == design
        assert Design.from_dict(design.to_dict()) == design


def test_the_papers_design_is_in_the_papers_space():
    space = load_space("s4")
    assert space.design(space.params(S4_PAPER)) == S4_PAPER


def test_s4_plus_takes_every_method_that_there_is_at_most_three_in_a_group():
    space = load_space("s4-plus")
    assert space.methods == tuple(METHODS)
    subsets = sum(comb(len(METHODS), k) for k in (1, 2, 3))
    assert space.n_designs == 5 * 3 * ((1 + subsets) ** 4 - 1)
    sizes = {len(str(c).split("+")) for d in space.dimensions if d.name == "methods.G1" for c in d.choices}
    assert sizes == {1, 2, 3}
    found = space.params(S4_PAPER)
    assert found is not None, "the order of a group's methods says nothing"
    assert [set(m) for m in space.design(found).methods] == [set(m) for m in S4_PAPER.methods]


def test_without_a_cap_twelve_methods_are_the_most():
    data = {"allocations": ["uniform"], "methods": [f"m{i}" for i in range(13)]}
    with pytest.raises(ConfigError, match="with more, set 'max_methods_per_group'"):
        SearchSpace.from_dict("large", data)
    capped = SearchSpace.from_dict("large", data | {"max_methods_per_group": 3})
    assert capped.n_subsets == 13 + 78 + 286
    assert SearchSpace.from_dict("large", data | {"methods": data["methods"][:12]}).n_subsets == 4095


def test_with_budget_shares():
    plain = load_space("s4")
    shared = plain.with_budget_shares((0.125, 0.25, 0.5, 1.0))
    assert shared.n_designs == 4 * plain.n_designs
    assert shared.dimensions == (*plain.dimensions, Dimension(name="budget_share", choices=(0.125, 0.25, 0.5, 1.0)))
    assert shared.with_budget_shares((0.1,)) == shared, "the space's own shares stay"
    params = shared.params(S4_PAPER)
    assert params["budget_share"] == 1.0
    half = shared.design(params | {"budget_share": 0.5})
    assert half == replace(S4_PAPER, budget_share=0.5)
    assert shared.params(half) == params | {"budget_share": 0.5}
    assert shared.params(replace(S4_PAPER, budget_share=0.3)) is None
    assert plain.params(half) is None
    assert shared.bound_to(6, ("lora",)).budget_shares == shared.budget_shares


def test_a_design_outside_has_no_params():
    other = Design(grouping="spindle", allocation=(1.0,) * 4, methods=(("lora",),) * 3 + (("ia3",),))
    assert load_space("s4").params(other) is None
    assert load_space("uniform").params(S4_PAPER) is None


def test_bound_to_a_backbone_without_biases():
    space = load_space("s4").bound_to(30, ("adapter", "prefix", "lora"))
    assert space.methods == ("adapter", "prefix", "lora")
    assert space.n_designs == 15 * (8**4 - 1)
    with pytest.raises(ConfigError, match="none of its methods"):
        load_space("s4").bound_to(30, ())
    with pytest.raises(ConfigError, match="at least 4 blocks"):
        load_space("s4").bound_to(3, ("lora",))


def test_equal_ratios_of_ranks_are_one_design():
    space = load_space("lora")
    base = {"grouping": "uniform"}
    one = space.design(base | {f"rank.G{i}": "1" for i in range(1, 5)})
    two = space.design(base | {f"rank.G{i}": "2" for i in range(1, 5)})
    assert one == two


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"methods": ["lora"]}, "needs either 'allocations' or 'ranks'"),
        ({"methods": ["lora", "lora"], "allocations": ["uniform"]}, "holds a value twice"),
        ({"methods": [], "allocations": ["uniform"]}, "must not be empty"),
        ({"methods": ["lora"], "ranks": [0]}, "a value above 0"),
        ({"methods": ["lora", "prefix"], "ranks": [1]}, "exactly one method"),
        ({"methods": ["lora"], "allocations": ["uniform"], "learning_rates": [0]}, "must be above 0"),
        ({"methods": ["lora"], "allocations": ["uniform"], "learning_rates": [float("nan")]}, "must be above 0"),
        ({"methods": ["lora"], "allocations": ["uniform"], "groups": 9}, "is too large"),
        ({"methods": ["lora"], "allocations": ["uniform"], "budget_shares": [0]}, "above 0 and at most 1, got 0"),
        ({"methods": ["lora"], "allocations": ["uniform"], "budget_shares": [1.5]}, "above 0 and at most 1, got 1.5"),
        ({"methods": ["lora"], "allocations": ["uniform"], "max_methods_per_group": 0}, "must be at least 1"),
        ({"methods": "lora", "allocations": ["uniform"]}, "'methods' must be a list of names or 'all', got 'lora'"),
    ],
)
def test_refused(data, message):
    with pytest.raises(ConfigError, match=message):
        SearchSpace.from_dict("bad", data)
