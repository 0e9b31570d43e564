"""Rates that follow the size: by hand, and as a law."""

from __future__ import annotations

from math import sqrt

import pytest

from peftsearch.backbone.detect import detect
from peftsearch.design.budget import parse_budget
from peftsearch.design.design import Design
from peftsearch.design.fitting import fit
from peftsearch.injection.inject import inject, param_groups
from peftsearch.injection.rates import REFERENCE_SIZE, size_factors
from peftsearch.methods import METHODS, get_method
from tests.methods import make, place


def rates(model, *, head=None, **sizes):
    with inject(model, place(detect(model), **sizes)):
        return {group["name"]: group["lr"] for group in param_groups(model, 1.0, head)}


def test_the_rate_falls_with_the_root_of_what_a_block_trains():
    model = make()
    block = detect(model).blocks[0]
    for name, sizes in (("lora", (1, 4)), ("adapter", (1, 4)), ("ia3", (1,))):
        for size in sizes:
            n = METHODS[name].count(block, size)
            expected = METHODS[name].lr_scale * sqrt(REFERENCE_SIZE / n)
            assert rates(model, **{name: size})[name] == pytest.approx(expected)


def test_a_mix_shares_the_size_and_keeps_the_ratio_of_its_methods():
    model = make()
    block = detect(model).blocks[0]
    n = METHODS["lora"].count(block, 2) + METHODS["ia3"].count(block, 1)
    found = rates(model, lora=2, ia3=1)
    assert found["lora"] == pytest.approx(METHODS["lora"].lr_scale * sqrt(REFERENCE_SIZE / n))
    assert found["ia3"] / found["lora"] == pytest.approx(METHODS["ia3"].lr_scale / METHODS["lora"].lr_scale)


def test_some_rates_do_not_follow_and_the_head_has_its_own():
    model = make()
    assert rates(model, prefix=1)["prefix"] == rates(model, prefix=3)["prefix"] == METHODS["prefix"].lr_scale
    assert rates(model, lora=1, head=0.25)["head"] == 0.25
    assert rates(model, lora=1)["head"] == 1.0


def test_shared_parameters_count_evenly_on_all_blocks_of_the_group():
    model = make()
    backbone = detect(model)
    design = Design(grouping="uniform", allocation=(1.0,), methods=(("lora_shared_a",),))
    architecture = fit(design, backbone, parse_budget("20%", backbone.n_params))
    factors = size_factors(architecture, backbone)
    assert len(set(factors.values())) == 1
    mean = architecture.n_params / len(backbone.blocks)
    assert next(iter(factors.values())) == pytest.approx(sqrt(REFERENCE_SIZE / mean))


def test_a_method_that_acts_once_counts_evenly_on_all_blocks():
    model = make()
    backbone = detect(model)
    architecture = place(backbone, prompt=4, lora=1)
    n_prompt = next(p.n_params for p in architecture.placements if p.method == "prompt")
    n_lora = METHODS["lora"].count(backbone.blocks[0], 1)
    expected = sqrt(REFERENCE_SIZE / (n_lora + n_prompt / len(backbone.blocks)))
    assert size_factors(architecture, backbone)["encoder_0_lora"] == pytest.approx(expected)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_says_whether_its_rate_follows_the_size(name):
    assert isinstance(get_method(name).lr_follows_size, bool)
