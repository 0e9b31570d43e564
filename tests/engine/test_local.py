"""What the engine does when a training collapses."""

from __future__ import annotations

from dataclasses import replace

import pytest

from peftsearch.design.baselines import uniform
from peftsearch.design.budget import parse_budget
from peftsearch.design.fitting import fit
from peftsearch.engine.job import Job
from peftsearch.engine.local import MOST_RETRIES, RETRY_FACTOR
from tests.engine import make_engine


def test_a_training_that_ends_above_its_start_is_tried_again_at_a_lower_rate() -> None:
    engine, loaded = make_engine()
    architecture = fit(uniform("lora"), loaded.backbone, parse_budget("20%", loaded.backbone.n_params))
    start = engine.run(Job(architecture=architecture, learning_rate=0.0, steps=0, measure=False)).loss
    wild = Job(architecture=architecture, learning_rate=0.5, steps=12, measure=False, keep_state=True)
    collapsed = engine.run(wild)
    assert collapsed.loss > start
    assert collapsed.n_collapsed == 0
    retried = engine.run(replace(wild, retry=True))
    assert 0 < retried.n_collapsed <= MOST_RETRIES
    lower = engine.run(replace(wild, learning_rate=0.5 * RETRY_FACTOR**retried.n_collapsed))
    assert (retried.loss, retried.states) == (lower.loss, lower.states)


def test_a_training_that_goes_well_is_not_tried_again() -> None:
    engine, loaded = make_engine()
    architecture = fit(uniform("ia3"), loaded.backbone, parse_budget("20%", loaded.backbone.n_params))
    job = Job(architecture=architecture, learning_rate=5e-3, steps=30, measure=False)
    plain, watched = engine.run(job), engine.run(replace(job, retry=True))
    assert (plain.loss, watched.n_collapsed) == (watched.loss, 0)


@pytest.mark.parametrize("n", [8, 20])
def test_a_limited_validation_takes_the_same_examples_for_every_design(n: int) -> None:
    engine, loaded = make_engine()
    budget = parse_budget("20%", loaded.backbone.n_params)
    losses = []
    for method in ("lora", "ia3"):  # exact at the start: equal losses on equal examples
        architecture = fit(uniform(method), loaded.backbone, budget)
        job = Job(architecture=architecture, learning_rate=0.0, steps=0, measure=False, n_validation=n)
        losses.append(engine.run(job).losses[0])
    assert losses[0] == losses[1]
    assert len(losses[0]) == n
