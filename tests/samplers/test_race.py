"""The portfolio of the race: what becomes of its entries, and what follows it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from peftsearch.design.space import load_space
from peftsearch.errors import ConfigError
from peftsearch.samplers import make_sampler
from peftsearch.samplers.race import points_of
from peftsearch.samplers.strategy import load_strategy
from tests.samplers.driving import BACKBONE, asked, context, run

HYBRID = load_space("hybrid").bound_to(len(BACKBONE.blocks), load_space("hybrid").methods)


def hybrid(n_trials=6):
    return replace(context(n_trials), space=HYBRID)


def test_the_portfolio_comes_first_and_another_sampler_after_it():
    entries = ["lora+ia3", {"methods": "krona", "allocation": "increasing"}, {"methods": "adapter", "tunable": "G3+G4"}]
    ctx = hybrid()
    sampler = make_sampler("race", ctx, {"portfolio": entries, "then": "random"})
    assert sampler is not None
    points = points_of(ctx, entries)
    assert [HYBRID.design(p).methods[3] for p in points] == [("lora", "ia3"), ("krona",), ("adapter",)]
    assert HYBRID.design(points[1]).allocation == (1, 2, 3, 4)
    assert HYBRID.design(points[2]).tunable == (2, 3)


def test_entries_that_the_space_lacks_or_that_do_not_fit_are_left_out():
    assert points_of(context(6), ["ia3+krona"]) == []  # the S4 space has neither
    assert points_of(replace(hybrid(), feasible=lambda design: False), ["lora+ia3"]) == []


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("lorra", "did you mean 'lora'"),
        ({"methods": "lora", "alocation": "uniform"}, "unknown keys"),
        ({"methods": "lora", "allocation": "up"}, "must be one of increasing"),
    ],
)
def test_refused(entry, message):
    with pytest.raises(ConfigError, match=message):
        make_sampler("race", hybrid(), {"portfolio": [entry]})


def test_the_shipped_portfolio_is_in_the_default_space():
    strategy = load_strategy("race")
    portfolio = strategy.sampler_settings["portfolio"]
    assert len(points_of(hybrid(), portfolio)) == len(portfolio) >= 8


def test_a_known_design_is_not_proposed_again():
    ctx = context(4)
    assert len({str(p) for p in asked(run("race", ctx))}) == 4
