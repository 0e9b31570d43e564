"""Tiny pretrained models that are wide enough for NF4's blocks of 64 weights, loaded packed and plain."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import transformers
from torch import nn

from peftsearch.backbone.load import LoadedBackbone, load_backbone
from tests.runs import save_tokenizer
from tests.tiny import TOKENS, build, tiny_input

SHAPE = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
CONFIGS: dict[str, Any] = {
    "bert": lambda: transformers.BertConfig(**SHAPE, **TOKENS, max_position_embeddings=64),
    "gpt2": lambda: transformers.GPT2Config(n_embd=64, n_layer=2, n_head=4, n_positions=64, **TOKENS),
    "llama": lambda: transformers.LlamaConfig(**SHAPE, **TOKENS, num_key_value_heads=2, max_position_embeddings=64),
}
"""Maps of their own with biases; transformers' Conv1D with a fused query, key and value; gated without biases."""


def save(path: Path, family: str = "bert") -> Path:
    """A model with values that are large enough for every effect to show."""
    model = build(CONFIGS[family](), num_labels=2)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    model.save_pretrained(path)
    return save_tokenizer(path)


@cache
def folder(family: str) -> TemporaryDirectory[str]:
    place = TemporaryDirectory()
    save(Path(place.name), family)
    return place


def load(family: str, how: str | None) -> LoadedBackbone:
    """Load one of the models anew."""
    return load_backbone(folder(family).name, num_labels=2, quantize=how)


def step(model: nn.Module) -> torch.Tensor:
    """A forward and backward pass of training, without dropout; returns the logits."""
    inputs = tiny_input(model)
    model.train()
    for module in model.modules():
        for name in ("p", "dropout_prob", "attention_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
    logits = model(**inputs).logits
    nn.functional.cross_entropy(logits, torch.tensor([0, 1, 0])).backward()
    result: torch.Tensor = logits.detach()
    return result


@torch.no_grad()
def evaluate(model: nn.Module) -> torch.Tensor:
    """Logits in evaluation mode, where bitsandbytes would repack."""
    result: torch.Tensor = model.eval()(**tiny_input(model)).logits
    return result
