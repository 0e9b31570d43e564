"""Tiny random models, one builder per family: 4 blocks, hidden 32, 4 heads, 99 tokens, always the same weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, PretrainedConfig

N_TOKENS = 99
SIZES = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4}
SHAPE = {**SIZES, "intermediate_size": 64}
TOKENS = {"vocab_size": N_TOKENS, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
GROUPED = {"num_key_value_heads": 2, "max_position_embeddings": 64}


def build(config: PretrainedConfig, num_labels: int) -> Any:
    """Build a model with a classification head from a config, in evaluation mode."""
    config.num_labels = num_labels
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return AutoModelForSequenceClassification.from_config(config).eval()


def bert(num_labels: int = 2) -> Any:
    """Post-norm encoder with a pooler."""
    return build(transformers.BertConfig(**SHAPE, **TOKENS, max_position_embeddings=64), num_labels)


def roberta(num_labels: int = 2) -> Any:
    """Encoder whose positions start behind its padding id, which is 1."""
    tokens = TOKENS | {"pad_token_id": 1, "bos_token_id": 0}
    return build(transformers.RobertaConfig(**SHAPE, **tokens, max_position_embeddings=66), num_labels)


def distilbert(num_labels: int = 2) -> Any:
    """Encoder with names of its own, and a head of two modules."""
    sizes = {"dim": 32, "n_layers": 4, "n_heads": 4, "hidden_dim": 64, "max_position_embeddings": 64}
    return build(transformers.DistilBertConfig(**sizes, **TOKENS), num_labels)


def electra(num_labels: int = 2) -> Any:
    """Encoder whose embeddings are narrower than its blocks."""
    sizes = {"embedding_size": 16, "max_position_embeddings": 64}
    return build(transformers.ElectraConfig(**SHAPE, **TOKENS, **sizes), num_labels)


def gpt2(num_labels: int = 2) -> Any:
    """Decoder with Conv1D and a fused query, key and value."""
    return build(transformers.GPT2Config(n_embd=32, n_layer=4, n_head=4, n_positions=64, **TOKENS), num_labels)


def opt(num_labels: int = 2) -> Any:
    """Decoder with biases and one map per role."""
    sizes = {"ffn_dim": 64, "word_embed_proj_dim": 32, "max_position_embeddings": 64}
    return build(transformers.OPTConfig(**SIZES, **sizes, **TOKENS), num_labels)


def llama(num_labels: int = 2) -> Any:
    """Decoder without biases, gated, with 2 key and value heads."""
    return build(transformers.LlamaConfig(**SHAPE, **TOKENS, **GROUPED), num_labels)


def qwen2(num_labels: int = 2) -> Any:
    """As llama, with biases on query, key and value only."""
    return build(transformers.Qwen2Config(**SHAPE, **TOKENS, **GROUPED), num_labels)


def qwen3(num_labels: int = 2) -> Any:
    """As llama, with heads of 16: all heads together are wider than the hidden width."""
    return build(transformers.Qwen3Config(**SHAPE, **TOKENS, **GROUPED, head_dim=16), num_labels)


FAMILIES: dict[str, Callable[..., Any]] = {
    "bert": bert,
    "roberta": roberta,
    "distilbert": distilbert,
    "electra": electra,
    "gpt2": gpt2,
    "opt": opt,
    "llama": llama,
    "qwen2": qwen2,
    "qwen3": qwen3,
}


def tiny_input(model: nn.Module) -> dict[str, Tensor]:
    """Three sequences of 7, 5 and 3 tokens, padded on the right to 7.

    Returns:
        `input_ids` and `attention_mask`, both `(3, 7)`.
    """
    config: Any = model.config
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, N_TOKENS, (3, 7), generator=generator)
    mask = (torch.arange(7) < torch.tensor([[7], [5], [3]])).long()
    return {"input_ids": ids.masked_fill(mask == 0, int(config.pad_token_id)), "attention_mask": mask}
