"""Folding into the backbone's weights: the same outputs, fewer hooks, and nothing left behind."""

import copy
from collections import Counter

import pytest
import torch
from torch import nn

from peftsearch.backbone.detect import detect
from peftsearch.errors import MethodError
from peftsearch.injection.inject import inject, remove
from peftsearch.injection.merging import merged
from peftsearch.methods import METHODS
from peftsearch.methods.abilities import Foldable
from tests.methods import available, disturb, equipped, make, place
from tests.tiny import FAMILIES, tiny_input

HYBRIDS = {
    "lora": {"lora": 2},
    "bitfit": {"bitfit": 3},
    "both": {"lora": 2, "bitfit": 3},
    "all": {"adapter": 2, "adapter_pfeiffer": 3, "prefix": 2, "lora": 2, "bitfit": 3},
}


def logits(model):
    with torch.no_grad():
        return model(**tiny_input(model)).logits


def hooks(model):
    return Counter(type(getattr(h, "__self__", h)).__name__ for m in model.modules() for h in m._forward_hooks.values())


@pytest.fixture(params=FAMILIES)
def model(request):
    return make(request.param)


@pytest.mark.parametrize("hybrid", HYBRIDS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_outputs_are_the_same_and_all_comes_back(model, hybrid, dtype, tolerance):
    backbone = detect(model)
    plain = logits(model.to(dtype))
    inject(model, place(backbone, **available(backbone, **HYBRIDS[hybrid])), backbone)
    disturb(model.to(dtype))
    state, unmerged, before = copy.deepcopy(model.state_dict()), logits(model), hooks(model)
    order = [list(m._forward_hooks.items()) for m in model.modules()]
    scale = float(unmerged.abs().max().clamp(min=1))
    if before:  # not so for BitFit on a backbone without biases
        assert float((unmerged - plain).abs().max()) > 1e-3 * scale, "the methods must change the output"
    with merged(model):
        torch.testing.assert_close(logits(model), unmerged, atol=tolerance * scale, rtol=0)
        assert set(hooks(model)) <= {"Bottleneck"}
        assert hooks(model)["Bottleneck"] == before["Bottleneck"]
    assert hooks(model) == before
    assert [list(m._forward_hooks.items()) for m in model.modules()] == order
    after = model.state_dict()
    assert list(after) == list(state)
    assert all(torch.equal(after[name], state[name]) for name in state)
    assert torch.equal(logits(model), unmerged)


def test_a_merged_backbone_needs_no_method(model):
    """The folded weights alone, in a model into which nothing was injected, give the outputs."""
    backbone = detect(model)
    bare = copy.deepcopy(model)
    inject(model, place(backbone, **available(backbone, **HYBRIDS["both"])), backbone)
    disturb(model)
    unmerged = logits(model)
    with merged(model):
        bare.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("peftsearch.")})
    torch.testing.assert_close(logits(bare), unmerged, atol=1e-5 * max(1, float(unmerged.abs().max())), rtol=0)


@pytest.mark.parametrize("name", METHODS)
def test_methods_that_merge_have_hooks_that_fold(name):
    model = make()
    backbone = equipped(detect(model))
    injection = inject(model, place(backbone, **{name: 1}), backbone)
    ours = set(injection.injected.modules())
    folding = [
        isinstance(h.__self__, Foldable)
        for m in model.modules()
        for h in m._forward_hooks.values()
        if getattr(h, "__self__", None) in ours
    ]
    assert (bool(folding) and all(folding)) if METHODS[name].merges else not any(folding)


def test_a_hook_behind_one_that_stays_is_not_folded():
    model = make()
    backbone = detect(model)
    path = backbone.blocks[0].attention.query.path
    model.get_submodule(path).register_forward_hook(lambda module, args, output: 2 * output)
    inject(model, place(backbone, lora=2), backbone)
    disturb(model)
    unmerged = logits(model)
    with merged(model):
        torch.testing.assert_close(logits(model), unmerged, atol=1e-5 * float(unmerged.abs().max()), rtol=0)
        assert hooks(model)["LowRank"] == 1


def test_a_packed_weight_keeps_its_hook():
    class Packed(nn.Linear):
        """A linear map whose weight is kept in bytes, two numbers each, as quantisers do."""

        def forward(self, x):
            return nn.functional.linear(x, self.plain, self.bias)

    model = make()
    backbone = detect(model)
    path = backbone.blocks[0].attention.query.path
    parent, name = path.rsplit(".", 1)
    old, packed = model.get_submodule(path), Packed(32, 32)
    packed.plain, packed.bias = old.weight.detach().clone(), old.bias
    packed.weight = nn.Parameter(torch.zeros(512, 1, dtype=torch.uint8), requires_grad=False)
    setattr(model.get_submodule(parent), name, packed)
    inject(model, place(backbone, lora=2), backbone)
    disturb(model)
    unmerged = logits(model)
    with merged(model):
        assert hooks(model)["LowRank"] == 1
        torch.testing.assert_close(logits(model), unmerged, atol=1e-5 * float(unmerged.abs().max()), rtol=0)


def test_an_error_inside_and_a_removal_inside_leave_nothing():
    model = make()
    state, plain = copy.deepcopy(model.state_dict()), logits(model)
    inject(model, place(detect(model), lora=2, bitfit=3))
    disturb(model)
    with pytest.raises(RuntimeError, match="stop"), merged(model):
        raise RuntimeError("stop")
    with merged(model):
        remove(model)
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert not hooks(model)
    assert torch.equal(logits(model), plain)


def test_a_model_without_an_architecture_is_refused():
    with pytest.raises(MethodError, match="carries no architecture"), merged(make()):
        pass
