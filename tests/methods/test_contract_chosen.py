"""Methods that choose by gradients: the choice against autograd on the weights themselves, merging, and saving."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from peftsearch.backbone.detect import detect
from peftsearch.engine.priming import needs_priming
from peftsearch.errors import MethodError
from peftsearch.injection.inject import inject, remove
from peftsearch.injection.merging import merged
from peftsearch.injection.states import load_state, save_state, state
from peftsearch.methods import METHODS
from peftsearch.methods.layers.adapter_sparse import SparseBottleneck
from peftsearch.methods.layers.far import Nodes
from peftsearch.methods.layers.fishmask import ChosenWeights
from peftsearch.methods.layers.probing import Choice, ProbedMap
from peftsearch.methods.projections import name_projections
from tests.methods import disturb, make, place, settle
from tests.tiny import tiny_input


class Watched(torch.Tensor):
    """Counts how often its first element is asked for."""

    n_reads: int

    @classmethod
    def of(cls, tensor: torch.Tensor) -> Watched:
        own = tensor.as_subclass(cls)
        own.n_reads = 0
        return own

    def __getitem__(self, key: Any) -> torch.Tensor:
        self.n_reads += 1
        return self.as_subclass(torch.Tensor)[key]


CHOOSING = ("fishmask", "far", "adapter_sparse")


def weight_gradients(model: Any, block: Any) -> dict[str, torch.Tensor]:
    """Gradients of a block's weights `(d_out, d_in)` in the plain model, by autograd on the parameters."""
    projections = name_projections(block)
    parameters = {name: model.get_submodule(p.path).weight for name, p in projections.items()}
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    loss = functional.cross_entropy(model(**tiny_input(model)).logits, torch.arange(3) % 2)
    found = torch.autograd.grad(loss, list(parameters.values()))
    out = {}
    for (name, p), gradient in zip(projections.items(), found, strict=True):
        own = gradient if isinstance(model.get_submodule(p.path), nn.Linear) else gradient.t()
        out[name] = own[p.start : p.start + p.d_out]
    return out


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama"])
def test_fishmask_trains_the_weights_with_the_largest_squared_gradients(family: str) -> None:
    model = make(family)
    block = detect(model).blocks[1]
    gradients = torch.cat([g.flatten() for g in weight_gradients(model, block).values()])
    inject(model, place(detect(model), fishmask=40))
    settle(model)
    own = [m for m in model.modules() if isinstance(m, ChosenWeights)][1]
    assert len(own.index) == METHODS["fishmask"].count(block, 40)
    assert set(own.index.tolist()) == set(gradients.square().topk(len(own.index)).indices.tolist())


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama"])
def test_far_trains_the_nodes_that_one_step_moves_most(family: str) -> None:
    model = make(family)
    block = detect(model).blocks[1]
    gradients = weight_gradients(model, block)
    moved = gradients["ffn_out"].abs().sum(0)
    moved += sum(g.abs().sum(1) for name, g in gradients.items() if name.startswith("ffn_in"))
    inject(model, place(detect(model), far=5))
    settle(model)
    own = [m for m in model.modules() if isinstance(m, Nodes)][1]
    assert own.nodes.tolist() == sorted(moved.topk(5).indices.tolist())


def test_sparse_adapter_keeps_a_quarter_by_gradient_times_weight() -> None:
    model = make()
    inject(model, place(detect(model), adapter_sparse=2))
    own = next(m for m in model.modules() if isinstance(m, SparseBottleneck))
    own.watch()
    assert own.probe is not None
    functional.cross_entropy(model(**tiny_input(model)).logits, torch.arange(3) % 2).backward()
    assert own.probe.grad is not None
    score = (own.probe.grad * own.start).abs()
    own.drop()
    settle(model)
    assert len(own.index) * 4 == len(own.start)
    assert set(own.index.tolist()) == set(score.topk(len(own.index)).indices.tolist())
    assert torch.equal(own.weights()[own.index], own.start[own.index])
    assert int(own.weights().count_nonzero()) == len(own.index)


@pytest.mark.parametrize("name", CHOOSING)
def test_training_before_the_choice_is_an_error_and_the_choice_is_saved(name: str, tmp_path: Any) -> None:
    model = make()
    inject(model, place(detect(model), **{name: 3}))
    assert needs_priming(model)
    model.train()
    with pytest.raises(MethodError, match=rf"{name}: .* peftsearch\.prime"):
        model(**tiny_input(model))
    model.eval()
    settle(model)
    disturb(model)
    expected = model(**tiny_input(model)).logits
    save_state(model, tmp_path / "state.safetensors")
    remove(model)
    inject(model, place(detect(model), **{name: 3}), seed=5)
    load_state(model, tmp_path / "state.safetensors")
    assert torch.equal(model(**tiny_input(model)).logits, expected)
    assert any("index" in key or "nodes" in key for key in state(model))


@pytest.mark.parametrize("name", ["fishmask", "far", "said"])
@pytest.mark.parametrize("family", ["bert", "gpt2", "llama"])
@torch.no_grad()
def test_merged_equals_unmerged_in_double_precision(name: str, family: str) -> None:
    model = make(family).double()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with inject(model, place(detect(model), **{name: 3})) as injection:
        with torch.enable_grad():
            settle(model)
        injection.injected.double()
        disturb(model)
        plain = model(**tiny_input(model)).logits
        with merged(model):
            changed = sum(
                int((value != before[key]).sum())
                for key, value in model.state_dict().items()
                if not key.startswith("peftsearch.")
            )
            torch.testing.assert_close(model(**tiny_input(model)).logits, plain, atol=1e-5, rtol=0)
    method, blocks = METHODS[name], detect(model).blocks
    assert changed == sum(method.changed(block, 3) for block in blocks)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_a_choice_is_read_again_after_a_change_alone() -> None:
    index, choice = Watched.of(torch.full((4,), -1)), Choice("fishmask")
    assert not choice.is_made(index)
    index.data.copy_(torch.tensor([3, 9, 10, 25]))  # as a broadcast between processes does: no new version
    assert [choice.is_made(index) for _ in range(3)] == [True] * 3
    assert index.n_reads == 2, "each read would wait for an accelerator"
    index.fill_(-1)
    assert not choice.is_made(index)
    with torch.inference_mode():
        assert not choice.is_made(torch.full((4,), -1)), "such a tensor counts no changes"


@pytest.mark.parametrize("method", CHOOSING)
def test_training_does_not_read_the_choice_at_every_step(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make("bert")
    inject(model, place(detect(model), **{method: 2}))
    settle(model)
    model.train()
    model(**tiny_input(model))
    monkeypatch.setattr(torch.Tensor, "__bool__", None)
    for module in model.modules():
        if isinstance(module, (ChosenWeights, Nodes, SparseBottleneck)):
            assert module.choice.is_made(module.nodes if isinstance(module, Nodes) else module.index)


def test_values_that_a_broadcast_brings_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """DistributedDataParallel writes buffers past their version; a rank may have looked before it."""
    model = make("bert")
    inject(model, place(detect(model), fishmask=40))
    settle(model)
    own = next(m for m in model.modules() if isinstance(m, ChosenWeights))
    first = next(iter(own.maps.values()))
    with torch.no_grad():
        own.values.fill_(1.0)
    assert isinstance(first, ProbedMap)
    first.delta()
    own.index.data.copy_(torch.arange(len(own.index)))
    n = min(len(own.index), first.shape[0] * first.shape[1])
    assert torch.equal(first.delta().flatten()[:n], torch.ones(n))
    assert int(first.delta().count_nonzero()) == n
