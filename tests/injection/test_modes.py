"""Which modules are in training mode: those that are trained, and frozen ones only where dropout is asked for."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from peftsearch.backbone.detect import detect
from peftsearch.design.budget import parse_budget
from peftsearch.design.design import Design
from peftsearch.design.fitting import fit
from peftsearch.injection.inject import inject
from peftsearch.injection.modes import set_training
from tests.tiny import FAMILIES

DESIGN = Design(grouping="uniform", allocation=(1.0,) * 4, methods=(("adamix",),) * 4)


@pytest.fixture
def injected():
    model = FAMILIES["bert"]()
    backbone = detect(model)
    with inject(model, fit(DESIGN, backbone, parse_budget("20%", backbone.n_params)), backbone):
        yield model


def logits(model):
    torch.manual_seed(1)
    return model(input_ids=torch.arange(10, 22).reshape(2, 6)).logits


def test_a_frozen_backbone_does_not_drop_out_and_what_is_injected_trains(injected):
    set_training(injected, dropout=False)
    dropouts = [m for m in injected.modules() if isinstance(m, nn.Dropout)]
    assert dropouts
    assert not any(m.training for m in dropouts)
    assert all(m.training for m in injected.peftsearch.modules())
    assert injected.get_submodule("classifier").training
    injected.eval()
    assert not any(m.training for m in injected.modules())


def test_with_dropout_all_is_in_training_mode(injected):
    set_training(injected, dropout=True)
    assert all(m.training for m in injected.modules())


def test_a_model_whose_own_weights_are_trained_drops_out():
    model = FAMILIES["bert"]()
    set_training(model, dropout=False)
    assert all(m.training for m in model.modules())


def test_checkpointed_blocks_still_recompute(injected):
    enable = getattr(injected, "activation_checkpointing_enable", None) or injected.gradient_checkpointing_enable
    enable()
    set_training(injected, dropout=False)
    kept = [m for m in injected.modules() if getattr(m, "gradient_checkpointing", False)]
    assert kept
    assert all(m.training for m in kept)
    assert not any(m.training for m in injected.modules() if isinstance(m, nn.Dropout))
    set_training(injected, dropout=False)
    assert logits(injected).requires_grad
