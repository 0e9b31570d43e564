"""A training that pauses and thaws is the uninterrupted one, bit for bit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from safetensors.torch import load

from peftsearch.design.architecture import Architecture
from peftsearch.design.baselines import uniform
from peftsearch.design.budget import parse_budget
from peftsearch.design.fitting import fit
from peftsearch.engine.job import Job
from peftsearch.engine.local import LocalEngine
from peftsearch.engine.snapshot import average_from, part, put
from peftsearch.errors import StudyError
from peftsearch.injection.inject import inject
from tests.engine import make_engine


def job(engine: LocalEngine, loaded: Any, *methods: str, **more: Any) -> Job:
    architecture = fit(uniform(*methods), loaded.backbone, parse_budget("10%", loaded.backbone.n_params))
    return Job(architecture=architecture, learning_rate=1e-2, steps=9, seed=3, keep_state=True, measure=False, **more)


@pytest.mark.parametrize("methods", [("lora", "ia3"), ("adapter", "prefix"), ("fishmask",), ("adamix",)])
def test_two_pauses_change_nothing(methods: tuple[str, ...]) -> None:
    engine, loaded = make_engine()
    whole = engine.run(job(engine, loaded, *methods))
    other, reloaded = make_engine()  # another process
    first = other.run(job(other, reloaded, *methods, until=2))
    assert first.train_loss is not None
    assert len(first.paused) == 1
    second = other.run(job(other, reloaded, *methods, until=5, paused=first.paused))
    third = other.run(job(other, reloaded, *methods, paused=second.paused))
    assert third.paused == ()
    assert (third.loss, third.score, third.train_loss) == (whole.loss, whole.score, whole.train_loss)
    assert third.states == whole.states
    assert first.states != whole.states


def test_what_pauses_is_scored_with_the_mean_of_its_last_weights() -> None:
    """After six steps, of steps five and six; read from the snapshots, put into a model and scored by hand."""
    engine, loaded = make_engine()
    found = [engine.run(job(engine, loaded, "lora", "ia3", until=step)) for step in (5, 6)]
    own = []
    for outcome in found:
        blob = outcome.paused[0]
        own.append(part(load(blob[8 + int.from_bytes(blob[:8], "little") :]), "now"))
    means = {name: (own[0][name] + own[1][name]) / 2 for name in own[0]}
    one = job(engine, loaded, "lora", "ia3")
    with inject(loaded.model, one.architecture, loaded.backbone):  # type: ignore[arg-type]
        put(loaded.model, means)
        track = engine._tracks[0]
        by_hand = track.objective.evaluate(
            loaded.model, track.encoded.validation, batch_size=16, device=torch.device("cpu"), autocast=None
        )
    assert found[1].loss == pytest.approx(by_hand.loss, rel=1e-6)


@pytest.mark.parametrize(("step", "start"), [(90, 60), (30, 29), (31, 30), (40, 30), (45, 30), (300, 200), (1, 0)])
def test_no_weights_of_the_warm_up_are_averaged(step: int, start: int) -> None:
    assert average_from(step, 300, 0.1) == start


def test_a_pause_is_the_first_part_of_the_schedule_and_no_shorter_one() -> None:
    engine, loaded = make_engine()
    long = engine.run(job(engine, loaded, "lora", until=3))
    short = engine.run(replace(job(engine, loaded, "lora"), steps=3))
    assert long.loss != short.loss


def test_a_damaged_or_foreign_snapshot_is_refused() -> None:
    engine, loaded = make_engine()
    paused = engine.run(job(engine, loaded, "lora", until=2)).paused[0]
    for broken in (paused[:100], b"", paused[:-8]):
        with pytest.raises(StudyError, match="damaged"):
            engine.run(job(engine, loaded, "lora", paused=(broken,)))
    with pytest.raises(StudyError, match="other parameters"):
        engine.run(job(engine, loaded, "ia3", paused=(paused,)))
    assert engine.run(job(engine, loaded, "lora")).score is not None  # the model was restored


def test_the_generators_begin_every_step_alike_for_every_design() -> None:
    """A design that draws more, as AdaMix draws paths, must not shift the dropout of the next step."""
    engine, loaded = make_engine()
    found = []
    for methods in (("lora",), ("adamix",)):
        states: list[bytes] = []
        hook = loaded.model.bert.embeddings.register_forward_pre_hook(
            lambda module, args, states=states: (
                states.append(torch.get_rng_state().numpy().tobytes()) if torch.is_grad_enabled() else None
            )
        )
        engine.run(replace(job(engine, loaded, *methods), steps=4))
        hook.remove()
        found.append(list(dict.fromkeys(states)))
    lora, adamix = found
    assert len(lora) == 4
    assert set(lora) <= set(adamix)  # AdaMix runs a second forward in every step, from another state


def test_the_head_alone_takes_no_step() -> None:
    engine, _ = make_engine()
    outcome = engine.run(Job(architecture=Architecture(placements=()), learning_rate=1e-2, steps=0, measure=False))
    assert outcome.train_s == 0
    assert outcome.train_loss is None
    assert outcome.score is not None
