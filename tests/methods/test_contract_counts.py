"""Counts against the papers' own numbers, on the shapes of their models, without weights."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import torch
import transformers

from peftsearch.backbone.anatomy import Attention, Backbone, Block, FeedForward, Projection
from peftsearch.backbone.detect import detect
from peftsearch.methods import METHODS
from peftsearch.methods.adapter import Adapter
from peftsearch.methods.lora import LoRA
from peftsearch.methods.method import Method
from peftsearch.methods.phm import PHM


@cache
def t5_base() -> tuple[Backbone, int, int]:
    """T5-base, its parameters, and those of its norms."""
    config = transformers.T5Config(
        vocab_size=32128, d_model=768, d_ff=3072, d_kv=64, num_layers=12, num_heads=12, decoder_start_token_id=0
    )
    with torch.device("meta"):
        model = transformers.T5ForConditionalGeneration(config)
    norms = sum(p.numel() for name, p in model.named_parameters() if "layer_norm" in name)
    return detect(model), sum(p.numel() for p in model.parameters()), norms


def percent(method: Method, size: int, with_norms: bool = True, crossing: bool = True) -> float:
    """Share of T5-base that a method trains; 2106.04647 trains the norms beside each (fig. 2).

    Its adapters stand behind the self-attention and the feed-forward network of a decoder block alone, which is what
    `crossing=False` counts; ours stand behind the cross-attention too.
    """
    backbone, n_params, norms = t5_base()
    blocks = backbone.blocks if crossing else tuple(replace(b, cross_attention=None) for b in backbone.blocks)
    n = sum(method.count(block, size) for block in blocks) + (norms if with_norms else 0)
    return 100 * n / n_params


def test_adapters_on_t5_base() -> None:
    """2106.04647 table 1: adapter 0.832 %, PHM adapter 0.179 % with n = 12, both with bottlenecks of 24."""
    assert round(percent(Adapter(), 24, crossing=False), 3) == 0.832
    assert round(percent(PHM(n=12), 2, crossing=False), 3) == 0.179


def test_ia3_on_t5_base() -> None:
    """2205.05638 sec. 3.3: L (d_k + d_v + d_ff) in the encoder and L (2 d_k + 2 d_v + d_ff) in the decoder."""
    backbone, _, _ = t5_base()
    d, d_ff = 768, 3072
    n = sum(METHODS["ia3"].count(block, 1) for block in backbone.blocks)
    assert n == 12 * (2 * d + d_ff) + 12 * (4 * d + d_ff)
    assert 0.01 < percent(METHODS["ia3"], 1, with_norms=False) < 0.1


def test_layernorm_on_t5_base() -> None:
    """All of its norms but the final one of each stack, which belongs to no block."""
    backbone, _, norms = t5_base()
    assert sum(METHODS["layernorm"].count(block, 1) for block in backbone.blocks) == norms - 2 * 768


def test_lora_on_gpt3() -> None:
    """2106.09685 table 4: 4.7 M on query and value of 96 layers of width 12288 with r = 1, 37.7 M with r = 8."""
    square = Projection(path="map", d_in=12288, d_out=12288)
    attention = Attention(
        path="attention", query=square, key=square, value=square, output=square, n_heads=96, n_kv_heads=96,
        head_dim=128, causal=True, interface=True,
    )  # fmt: skip
    inner = Projection(path="in", d_in=12288, d_out=49152)
    ffn = FeedForward(inputs=(inner,), output=Projection(path="out", d_in=49152, d_out=12288))
    block = Block(stack="decoder", index=0, path="block", hidden_size=12288, attention=attention, ffn=ffn)
    assert round(96 * LoRA().count(block, 1) / 1e6, 1) == 4.7
    assert round(96 * LoRA().count(block, 8) / 1e6, 1) == 37.7
    assert 96 * METHODS["krona"].count(block, 1) == 96 * LoRA().count(block, 1)
