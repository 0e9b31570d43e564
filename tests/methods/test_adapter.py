"""Bottleneck adapters against their formula."""

from __future__ import annotations

import torch
from torch import nn

from peftsearch.backbone.detect import detect
from peftsearch.methods import METHODS
from peftsearch.methods.layers.adapter import Bottleneck
from tests.methods import make


def test_computes_the_papers_formula() -> None:
    torch.manual_seed(0)
    bottleneck = Bottleneck(8, 3)
    for parameter in bottleneck.parameters():
        nn.init.normal_(parameter)
    down, up = nn.Linear(8, 3), nn.Linear(3, 8)
    down.load_state_dict({"weight": bottleneck.w_down, "bias": bottleneck.b_down})
    up.load_state_dict({"weight": bottleneck.w_up, "bias": bottleneck.b_up})
    h = torch.randn(2, 5, 8)
    torch.testing.assert_close(bottleneck(nn.Identity(), (), h), h + up(nn.functional.gelu(down(h))))


def test_counts_and_places() -> None:
    block = detect(make()).blocks[0]
    d, m = block.hidden_size, 5
    assert METHODS["adapter_pfeiffer"].count(block, m) == 2 * d * m + d + m
    assert METHODS["adapter"].count(block, m) == 2 * (2 * d * m + d + m)
    assert METHODS["adapter"].places == "after attention and after ffn"


def test_every_sub_layer_of_a_decoder_has_one() -> None:
    encoder, decoder = (detect(make("t5")).blocks[i] for i in (0, -1))
    places = [list(METHODS["adapter"].outputs(block)) for block in (encoder, decoder)]
    assert places == [["attention", "ffn"], ["attention", "cross_attention", "ffn"]]
    assert METHODS["adapter"].count(decoder, 5) == 3 * (2 * 32 * 5 + 32 + 5)
    assert list(METHODS["adapter_pfeiffer"].outputs(decoder)) == ["ffn"]


def test_initial_values_are_small_and_truncated() -> None:
    torch.manual_seed(0)
    w_down = Bottleneck(200, 50).w_down
    assert 0.008 < w_down.std() < 0.01  # truncation at two deviations narrows 0.01 to 0.0088
    assert w_down.abs().max() <= 0.02
