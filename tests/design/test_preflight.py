"""Whether a training step fits: bytes by hand, and the way out that is named is the one that helps."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from peftsearch.backbone.anatomy import Weights
from peftsearch.backbone.load import LoadedBackbone
from peftsearch.design.memory import Step
from peftsearch.design.preflight import Preflight
from peftsearch.engine.inputs import memory_notes
from peftsearch.engine.settings import TrainingSettings
from peftsearch.injection.checkpoint import identify
from tests.tiny import FAMILIES

BLOCK = 20 * 32 * 16  # hidden states of one example of 16 tokens on one block of width 32, in floats
LOGITS = 16 * 99 * (2 + 4 + 8)


@pytest.fixture(scope="module")
def model():
    return FAMILIES["llama"](num_labels=2)


@pytest.fixture
def flight(model):
    blocks = identify(model).blocks
    return Preflight(
        weights=Weights(n_params=50_000, maps=((64, 64),) * 10), blocks=blocks, n_trained=100, n_tokens=99,
        step=Step(batch=8, seq=16, float_bytes=2, attention="fused"),
    )  # fmt: skip


def test_the_bytes_are_those_by_hand(flight):
    trained = 4 * 4 * 100  # parameters, gradients and two moments, all in float32
    assert flight.needed == trained + 8 * (4 * BLOCK * 2 + LOGITS)
    assert replace(flight, accumulate=4).needed == trained + 2 * (4 * BLOCK * 2 + LOGITS)
    again = 4 * 32 * 16 * 2 + BLOCK * 2  # the inputs of four blocks, and one block
    assert replace(flight, checkpointing=True).needed == trained + 8 * (again + LOGITS)


def test_what_fits_needs_no_advice(flight):
    assert flight.advice(flight.needed) is None
    assert flight.advice(flight.needed - 1) is not None


def test_the_fewest_parts_and_checkpointing_are_named_where_each_helps(flight):
    told = flight.advice(replace(flight, accumulate=2).needed)
    assert "--accumulate 2 or --gradient-checkpointing" in told
    assert "--accumulate 8" in flight.advice(replace(flight, accumulate=8).needed)


def test_both_together_where_neither_helps_alone(flight):
    free = replace(flight, accumulate=4, checkpointing=True).needed
    few = replace(flight, step=replace(flight.step, batch=4))
    assert "--gradient-checkpointing with --accumulate" in few.advice(min(free, replace(few, accumulate=4).needed - 1))


def test_packing_counts_where_weights_are_what_is_large(flight):
    told = flight.advice(flight.needed - 40_000)
    assert "--quantize nf4" in told
    assert "nf4" not in replace(flight, packed=True).advice(flight.needed - 40_000)


def test_nothing_helps(flight):
    assert "a smaller --batch-size or --max-length" in flight.advice(0)


def test_an_accelerator_is_asked_for_its_memory_and_a_cpu_is_not(model, monkeypatch):
    loaded = LoadedBackbone(model=model, tokenizer=SimpleNamespace(), backbone=identify(model))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (10_000, 10**9))
    arguments = (loaded, TrainingSettings(), 100, "classification")
    assert memory_notes(*arguments, torch.device("cpu"), None) == ()
    (note,) = memory_notes(*arguments, torch.device("cuda", 0), torch.bfloat16)
    assert note.startswith("cuda:0: a training step may need ")
    assert "10 kB are free" in note
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (10**9, 10**9))
    assert memory_notes(*arguments, torch.device("cuda", 0), torch.bfloat16) == ()
