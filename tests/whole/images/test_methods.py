"""Every method that can act on a ViT does so: inside the budget, trained by a step, taken out without a trace."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from peftsearch.backbone.detect import detect
from peftsearch.backbone.load import load_backbone
from peftsearch.design.baselines import uniform, usable_methods
from peftsearch.design.budget import Budget, parse_budget
from peftsearch.design.fitting import fit
from peftsearch.engine.priming import needs_priming, prime
from peftsearch.errors import MethodError
from peftsearch.injection.inject import inject
from peftsearch.methods import METHODS
from tests.image_files import vit

USABLE = usable_methods(detect(vit()))


@pytest.fixture(scope="module")
def loaded(gallery):
    return load_backbone(str(gallery / "model"), num_labels=3)


@pytest.fixture(scope="module")
def pixels():
    return torch.rand((4, 3, 16, 16), generator=torch.Generator().manual_seed(0))


def logits(model, pixels):
    with torch.no_grad():
        return model.eval()(pixel_values=pixels).logits


def test_those_that_need_words_cannot_act(loaded):
    refused = set(METHODS) - set(USABLE)
    assert {"prompt", "ptuning", "ipt"} <= refused
    for name in refused:
        with pytest.raises(MethodError, match="without words"):
            fit(uniform(name), loaded.backbone, parse_budget("50%", loaded.backbone.n_params))


@pytest.mark.parametrize("name", USABLE)
def test_a_method_trains_and_goes(name, loaded, pixels):
    model, before = loaded.model, logits(loaded.model, pixels)
    architecture = fit(
        uniform(name), loaded.backbone, Budget(text="all", n_params=10**6, n_backbone=loaded.backbone.n_params)
    )
    with inject(model, architecture, loaded.backbone, seed=1):
        if METHODS[name].exact_at_init:
            torch.testing.assert_close(logits(model, pixels), before)
        if needs_priming(model):
            batch = {"pixel_values": pixels, "labels": torch.tensor([0, 1, 2, 0])}
            prime(model, [batch], loss_of=cross_entropy, device=torch.device("cpu"))
        trained = [p for n, p in model.named_parameters() if p.requires_grad and not n.startswith("classifier.")]
        model.train()(pixel_values=pixels).logits.logsumexp(-1).sum().backward()
        with torch.no_grad():
            for parameter in trained:
                if parameter.grad is not None:
                    parameter -= 0.5 * parameter.grad
        after = logits(model, pixels)
    assert trained
    assert torch.isfinite(after).all()
    assert torch.equal(logits(model, pixels), before)
    assert not torch.equal(after, before)
