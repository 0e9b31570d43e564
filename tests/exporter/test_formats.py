"""Every method through the formats that hold every method: the own folder, a merged model, and what stays beside it."""

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

import peftsearch
from peftsearch.injection.states import state
from peftsearch.methods import METHODS
from peftsearch.methods.abilities import Borrowing, ModelWide
from peftsearch.methods.support import find_obstacle
from tests.exports import Run, close, logits
from tests.tiny import outline

pytestmark = pytest.mark.slow

MERGING = [name for name, method in METHODS.items() if method.merges]
OWN = [name for name, method in METHODS.items() if not isinstance(method, Borrowing)]
"""Methods that are exported as they are; the others become smaller ones (tests/methods/test_ipt.py)."""
STAYING = [name for name in OWN if name not in MERGING]
PAIRS = [(name, f) for name in MERGING for f in ("bert", "gpt2", "llama") if find_obstacle(name, outline(f)) is None]


def sizes_of(name):
    """On two blocks; on the first where a method acts once on a model."""
    return (3, 0, 0, 0) if isinstance(METHODS[name], ModelWide) else (0, 2, 3, 0)


@pytest.mark.parametrize(("name", "family"), PAIRS)
def test_a_method_that_merges_becomes_a_plain_model(name, family, tmp_path):
    run = Run(tmp_path, family, seeds=(1000,), **{name: sizes_of(name)})
    run.export("merged", tmp_path / "out")
    close(logits(AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")), run.logits[1000])
    assert not list((tmp_path / "out").rglob("*peftsearch*"))


@pytest.mark.parametrize("merging", ["lora", "ia3", "fishmask"])
@pytest.mark.parametrize("name", STAYING)
def test_what_does_not_merge_loads_from_beside_the_merged_model(name, merging, tmp_path):
    run = Run(tmp_path, seeds=(1000,), **{merging: (1, 1, 0, 1), name: sizes_of(name)})
    run.export("merged", tmp_path / "out", "--partial")
    rest = peftsearch.load(None, tmp_path / "out" / "adapter")
    close(logits(rest.model), run.logits[1000])
    assert {p.method for p in rest.architecture.placements} == {name}


@pytest.mark.parametrize("name", OWN)
def test_the_own_format_gives_every_bit_back(name, tmp_path):
    run = Run(tmp_path, seeds=(1000,), **{name: sizes_of(name)})
    run.export("peftsearch", tmp_path / "own")
    kept = load_file(run.path / "confirmed" / "trial-3-seed1000.safetensors")
    exported = load_file(tmp_path / "own" / "peftsearch.safetensors")
    assert kept.keys() == exported.keys()
    assert all(torch.equal(value, exported[key]) for key, value in kept.items())
    read = peftsearch.load(None, tmp_path / "own").model
    assert torch.equal(logits(read), run.logits[1000])
    peftsearch.save(read, tmp_path / "again")
    again = peftsearch.load(AutoModelForSequenceClassification.from_pretrained(run.model), tmp_path / "again").model
    before, after = state(read), state(again)
    assert list(before) == list(after)
    assert all(torch.equal(before[key], after[key]) and before[key].dtype == after[key].dtype for key in before)
    assert torch.equal(logits(again), run.logits[1000])
