"""Gradient scores: against plain autograd, and without a trace in the model."""

import pytest
import torch
from torch.nn import functional

from peftsearch.backbone.detect import detect
from peftsearch.backbone.load import LoadedBackbone, reset_head
from peftsearch.design.baselines import usable_methods
from peftsearch.engine.saliency import measure
from peftsearch.methods import METHODS
from peftsearch.methods.abilities import is_placed
from tests.tiny import FAMILIES, tiny_input

CPU = torch.device("cpu")


def load(family):
    model = FAMILIES[family]()
    return LoadedBackbone(model=model, tokenizer=None, backbone=detect(model))


def batches_of(model, n=3):
    generator = torch.Generator().manual_seed(1)
    return [tiny_input(model) | {"labels": torch.randint(0, 2, (3,), generator=generator)} for _ in range(n)]


def score(loaded, methods, batches):
    return measure(loaded, methods, batches, loss_of=functional.cross_entropy, seed=0, device=CPU)


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama"])
def test_scores_every_pair_and_leaves_the_model_as_it_was(family):
    loaded = load(family)
    before = {name: value.clone() for name, value in loaded.model.state_dict().items()}
    flags = [p.requires_grad for p in loaded.model.parameters()]
    methods = usable_methods(loaded.backbone)
    scores = score(loaded, methods, batches_of(loaded.model))
    blocks = loaded.backbone.blocks
    placed = {(b.stack, b.index, m) for b in blocks for m in methods if is_placed(METHODS[m], b, blocks[0])}
    assert scores.keys() == placed
    for method in methods:
        own = [s for pair, s in scores.items() if pair[2] == method]
        assert sum(own) / len(own) == pytest.approx(1.0)
        assert min(own) > 0
    after = loaded.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert flags == [p.requires_grad for p in loaded.model.parameters()]
    assert all(p.grad is None for p in loaded.model.parameters())
    assert score(loaded, methods, batches_of(loaded.model)) == scores


def test_bitfit_against_the_gradients_of_the_biases_themselves():
    loaded = load("bert")
    scores = score(loaded, ("lora", "bitfit"), batches_of(loaded.model))
    model = FAMILIES["bert"]()
    reset_head(model, loaded.backbone, 0)
    squares = [0.0] * 4
    for batch in batches_of(model):
        model.zero_grad()
        labels = batch.pop("labels")
        functional.cross_entropy(model(**batch).logits, labels).backward()
        for i, block in enumerate(loaded.backbone.blocks):
            biases = [p for name, p in model.get_submodule(block.path).named_parameters() if name.endswith("bias")]
            squares[i] += sum(float(p.grad.square().sum()) for p in biases)
    norms = [s**0.5 for s in squares]
    expected = [4 * norm / sum(norms) for norm in norms]
    assert [scores["encoder", i, "bitfit"] for i in range(4)] == pytest.approx(expected, rel=1e-4)


def test_blocks_that_the_loss_does_not_reach_score_nothing():
    """The third block forgets its input; the biases of the fourth still move the output."""
    loaded = load("bert")
    with torch.no_grad():
        for name, parameter in loaded.model.get_submodule(loaded.backbone.blocks[2].path).named_parameters():
            if name.endswith("output.LayerNorm.weight"):
                parameter.zero_()
    scores = score(loaded, ("bitfit",), batches_of(loaded.model))
    assert scores["encoder", 0, "bitfit"] == scores["encoder", 1, "bitfit"] == 0.0
    assert scores["encoder", 3, "bitfit"] > 0.0


def test_a_gradient_that_is_no_number_scores_nothing():
    loaded = load("bert")

    def broken(logits, labels):
        return functional.cross_entropy(logits, labels) * float("nan")

    scores = measure(loaded, ("lora",), batches_of(loaded.model), loss_of=broken, seed=0, device=CPU)
    assert set(scores.values()) == {0.0}
