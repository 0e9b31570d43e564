"""Whether the budget limits the score, from made-up losses."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import optuna
import pytest

from peftsearch.searcher.headroom import affords_full, headroom

SETUP: Any = SimpleNamespace(
    budget=SimpleNamespace(n_params=1000),
    lengths=SimpleNamespace(steps=300, rungs=(90, 300)),
    backbone=SimpleNamespace(n_params=22_000_000),
    options=SimpleNamespace(quantize=None),
    memory=None,
)


def trial(name: str, n_params: int, loss: float, rung: int = 0, **more: Any) -> optuna.trial.FrozenTrial:
    facts = {"name": name, "n_params": n_params, "loss": loss, "rung": rung, "steps": SETUP.lengths.rungs[rung], **more}
    return optuna.trial.create_trial(value=-loss, user_attrs=facts)


@pytest.mark.parametrize(("cheap", "is_limited"), [(0.60, True), (0.51, False), (0.50, False), (0.49, False)])
def test_a_cheap_design_that_is_as_good_says_that_the_budget_does_not_limit(cheap: float, is_limited: bool) -> None:
    trials = [trial("head", 0, 1.0), trial("lora", 950, 0.50), trial("layernorm", 400, cheap)]
    found = headroom(trials, [], SETUP)
    assert found is not None
    assert found.is_limited == is_limited or cheap < 0.5
    assert "1.000 with the head alone" in found.text
    assert ("a larger budget may help" in found.text) == found.is_limited


def test_a_best_design_that_leaves_much_of_the_budget_says_that_the_budget_does_not_limit() -> None:
    found = headroom([trial("head", 0, 1.0), trial("lora", 950, 0.5), trial("ia3", 500, 0.4)], [], SETUP)
    assert found is not None
    assert not found.is_limited


def test_full_fine_tuning_is_told_beside_the_best_confirmed_mean() -> None:
    trials = [trial("head", 0, 1.0), trial("lora", 950, 0.5)]
    ends = [trial(name, 950, loss, rung=1) for name, loss in [("lora", 0.2), ("lora", 0.4), ("ia3", 0.35)]]
    full = optuna.trial.create_trial(value=0.9, user_attrs={"name": "full", "kind": "reference", "loss": 0.2})
    found = headroom(trials, [full, *ends], SETUP)
    assert found is not None
    assert "full fine-tuning ends at 0.200, lora at 0.300" in found.text


def test_nothing_is_said_before_there_are_losses() -> None:
    assert headroom([], [], SETUP) is None
    assert headroom([trial("head", 0, 1.0)], [], SETUP) is None


def test_full_fine_tuning_is_tried_where_it_is_a_small_part_of_the_search() -> None:
    assert affords_full(SETUP, 300 * 40)
    assert not affords_full(SETUP, 300 * 20)
    large = SimpleNamespace(**{**vars(SETUP), "backbone": SimpleNamespace(n_params=7 * 10**9)})
    assert not affords_full(large, 300 * 40)  # type: ignore[arg-type]
    packed = SimpleNamespace(**{**vars(SETUP), "options": SimpleNamespace(quantize="nf4")})
    assert not affords_full(packed, 300 * 40)  # type: ignore[arg-type]
