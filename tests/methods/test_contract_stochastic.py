"""DiffPruning, AdaMix and the ladder: their formulas, what they add to the loss, and what is left after training."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from peftsearch.backbone.detect import detect
from peftsearch.engine.loop import train
from peftsearch.engine.settings import TrainingSettings
from peftsearch.injection.extra_loss import consistency, extra_loss
from peftsearch.injection.inject import inject, param_groups, remove
from peftsearch.injection.merging import merged
from peftsearch.injection.reducing import reduce
from peftsearch.methods import METHODS
from peftsearch.methods.adamix import N_ADAPTERS
from peftsearch.methods.layers.adamix import Mixture
from peftsearch.methods.layers.diffpruning import PENALTY, Differences
from peftsearch.methods.layers.ladder import Side
from tests.methods import disturb, make, place
from tests.tiny import tiny_input

LABELS = torch.arange(3) % 2


def fit(model: Any, steps: int = 5) -> None:
    """Train by the loop that every trial uses."""
    batch = tiny_input(model) | {"labels": LABELS}
    steps_of = train(
        model, param_groups(model, 1e-2), [batch] * steps, n_steps=steps, settings=TrainingSettings(),
        loss_of=functional.cross_entropy, device=torch.device("cpu"),
    )  # fmt: skip
    for _ in steps_of:
        pass
    model.eval()


class TestDiffPruning:
    def test_the_penalty_is_the_expected_number_of_open_gates(self) -> None:
        """An oracle from outside: the share of drawn gates that are not zero (arXiv 1712.01312, eq. 11 and 12)."""
        model = make()
        inject(model, place(detect(model), diffpruning=1))
        own = next(m for m in model.modules() if isinstance(m, Differences))
        model.train()
        torch.manual_seed(0)
        open_ = torch.stack([own.maps["query"].gates() > 0 for _ in range(50)]).float().mean()  # type: ignore[operator]
        assert float(own.penalty().detach()) / (PENALTY * 32 * 32) == pytest.approx(float(open_), abs=0.01)

    @pytest.mark.parametrize("family", ["bert", "gpt2", "llama"])
    def test_what_is_left_is_half_a_percent_and_becomes_fishmask(self, family: str) -> None:
        model = make(family)
        before = {key: value.clone() for key, value in model.state_dict().items()}
        inject(model, place(detect(model), diffpruning=4))
        fit(model)
        with torch.no_grad():
            expected = model(**tiny_input(model)).logits
            blocks = detect(model).blocks
            n_weights = sum(p.d_in * p.d_out for block in blocks for p in block.projections)
            n_changed = sum(METHODS["diffpruning"].changed(block, 4) for block in blocks)
            assert n_changed == pytest.approx(0.005 * n_weights, rel=0.1)
            with merged(model):
                state = model.state_dict()
                plain = {key: value for key, value in state.items() if not key.startswith("peftsearch.")}
                changed = sum(int((value != before[key]).sum()) for key, value in plain.items() if "score" not in key)
                changed -= sum(int((plain[key] != before[key]).sum()) for key in plain if "classifier" in key)
            assert {p.method for p in reduce(model).placements} == {"fishmask"}
            torch.testing.assert_close(model(**tiny_input(model)).logits, expected)
        assert changed == n_changed
        remove(model)

    def test_the_penalty_is_in_the_gradient_of_a_training_step(self) -> None:
        model = make()
        inject(model, place(detect(model), diffpruning=1))
        model.train()
        batch = tiny_input(model)
        added = extra_loss(model, model(**batch).logits, lambda: pytest.fail("nothing is routed"))
        assert added is not None
        added.backward()
        gates = [p for key, p in model.named_parameters() if key.endswith("log_alpha")]
        assert all(p.grad is not None and float(p.grad.min()) > 0 for p in gates)


class TestAdaMix:
    def test_two_forwards_draw_apart_and_evaluation_takes_the_mean(self) -> None:
        torch.manual_seed(0)
        own = Mixture(8, 3, N_ADAPTERS)
        with torch.no_grad():
            for parameter in own.parameters():
                parameter.normal_()
        output = torch.randn(2, 5, 8)
        drawn = {float(own(None, (), output).sum().detach()) for _ in range(60)}  # type: ignore[arg-type]
        assert 8 < len(drawn) <= N_ADAPTERS**2
        own.eval()
        low = functional.gelu(output @ own.w_down.mean(0).t() + own.b_down.mean(0))
        torch.testing.assert_close(own(None, (), output), output + low @ own.w_up.mean(0).t() + own.b_up.mean(0))  # type: ignore[arg-type]

    def test_consistency_is_the_symmetric_divergence(self) -> None:
        torch.manual_seed(0)
        a, b = torch.randn(4, 3), torch.randn(4, 3)
        p, q = torch.distributions.Categorical(logits=a), torch.distributions.Categorical(logits=b)
        both = torch.distributions.kl_divergence(p, q) + torch.distributions.kl_divergence(q, p)
        torch.testing.assert_close(consistency(a, b), both.mean() / 2)
        assert float(consistency(a, a)) == pytest.approx(0.0, abs=1e-6)
        torch.testing.assert_close(consistency(a[:, :1], b[:, :1]), functional.mse_loss(a[:, :1], b[:, :1]))

    def test_training_makes_a_second_forward_and_the_mean_stays(self) -> None:
        model = make()
        inject(model, place(detect(model), adamix=2))
        calls = []
        handle = model.register_forward_hook(lambda *_: calls.append(1))
        fit(model, steps=4)
        handle.remove()
        assert len(calls) == 8
        with torch.no_grad():
            expected = model(**tiny_input(model)).logits
            architecture = reduce(model)
            torch.testing.assert_close(model(**tiny_input(model)).logits, expected)
        assert {p.method for p in architecture.placements} == {"adapter_pfeiffer"}


class TestLadder:
    @torch.no_grad()
    def test_climbs_as_the_formula_says(self) -> None:
        """An oracle from outside: the side network computed from the plain model's hidden states."""
        model = make()
        hidden = model(**tiny_input(model), output_hidden_states=True).hidden_states
        inject(model, place(detect(model), ladder=5))
        disturb(model)
        side = next(m for m in model.modules() if isinstance(m, Side))
        state = side.down[0](hidden[0])
        for i in range(4):
            opened = torch.sigmoid(side.gate[i])
            mixed = (1 - opened) * side.down[i + 1](hidden[i + 1]) + opened * state
            state = mixed + side.second[i](functional.gelu(side.first[i](mixed)))
        ours = model(**tiny_input(model), output_hidden_states=True).hidden_states[-1]
        torch.testing.assert_close(ours, hidden[-1] + side.up(state))

    def test_no_gradient_passes_the_backbone(self) -> None:
        model = make()
        inject(model, place(detect(model), ladder=5))
        disturb(model)
        grown: list[torch.Tensor] = []
        first: nn.Module = model.bert.encoder.layer[0]
        first.register_forward_hook(lambda module, args, output: grown.append(output))
        model(**tiny_input(model), labels=LABELS).loss.backward()
        assert not any((o if isinstance(o, torch.Tensor) else o[0]).requires_grad for o in grown)
