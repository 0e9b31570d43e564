"""Tiny random models, one builder per family: 4 layers, hidden 32, 4 heads, 99 tokens, always the same weights."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import AutoModelForImageClassification, AutoModelForSequenceClassification, PretrainedConfig

from peftsearch.backbone.anatomy import Backbone
from peftsearch.backbone.detect import detect

N_TOKENS = 99
SIZES = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4}
SHAPE = {**SIZES, "intermediate_size": 64}
TOKENS = {"vocab_size": N_TOKENS, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
RELATIVE = {
    "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "vocab_size": N_TOKENS, "pad_token_id": 0,
    "max_position_embeddings": 64,
}  # fmt: skip
GROUPED = {"num_key_value_heads": 2, "max_position_embeddings": 64}


def build(config: PretrainedConfig, num_labels: int) -> Any:
    """Build a model with a classification head from a config, in evaluation mode."""
    config.num_labels = num_labels
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        reads_images = hasattr(config, "patch_size")
        kind = AutoModelForImageClassification if reads_images else AutoModelForSequenceClassification
        return kind.from_config(config).eval()


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


def albert(num_labels: int = 2) -> Any:
    """Encoder whose four layers are one block."""
    sizes = {"embedding_size": 16, "max_position_embeddings": 64}
    return build(transformers.AlbertConfig(**SHAPE, **TOKENS, **sizes), num_labels)


def deberta(num_labels: int = 2) -> Any:
    """Encoder with relative positions, and query, key and value of each head side by side in one map."""
    return build(transformers.DebertaConfig(**SHAPE, **RELATIVE), num_labels)


def deberta_v2(num_labels: int = 2) -> Any:
    """As DeBERTa-v3: positions go through the maps of query and key, in buckets."""
    shared = {
        "share_att_key": True,
        "position_buckets": 8,
        "norm_rel_ebd": "layer_norm",
        "position_biased_input": False,
    }
    return build(transformers.DebertaV2Config(**SHAPE, **RELATIVE, **shared), num_labels)


def mpnet(num_labels: int = 2) -> Any:
    """Encoder with absolute positions and a relative position bias."""
    tokens = TOKENS | {"pad_token_id": 1, "bos_token_id": 0}
    return build(transformers.MPNetConfig(**SHAPE, **tokens, max_position_embeddings=66), num_labels)


def modernbert(num_labels: int = 2) -> Any:
    """Encoder without biases, gated and fused, whose first block has one norm."""
    tokens = {"cls_token_id": 3, "sep_token_id": 4, "max_position_embeddings": 64}
    return build(transformers.ModernBertConfig(**SHAPE, **TOKENS, **tokens), num_labels)


def gpt_neox(num_labels: int = 2) -> Any:
    """Decoder (Pythia) with attention beside the feed-forward network, and query, key and value fused head by head."""
    return build(transformers.GPTNeoXConfig(**SHAPE, **TOKENS, max_position_embeddings=64), num_labels)


def bloom(num_labels: int = 2) -> Any:
    """Decoder with ALiBi in an attention of its own, fused as GPT-NeoX's."""
    return build(transformers.BloomConfig(hidden_size=32, n_layer=4, n_head=4, **TOKENS), num_labels)


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


def mistral(num_labels: int = 2) -> Any:
    """As llama, with a window of 4 tokens."""
    return build(transformers.MistralConfig(**SHAPE, **TOKENS, **GROUPED, sliding_window=4), num_labels)


def gemma(num_labels: int = 2) -> Any:
    """As llama, with heads of 16 and norms whose gain is 1 + weight."""
    return build(transformers.GemmaConfig(**SHAPE, **TOKENS, **GROUPED, head_dim=16), num_labels)


def phi(num_labels: int = 2) -> Any:
    """Decoder with attention beside the feed-forward network, behind one norm."""
    return build(transformers.PhiConfig(**SHAPE, **TOKENS, max_position_embeddings=64), num_labels)


def phi3(num_labels: int = 2) -> Any:
    """As llama, with one map for query, key and value, and one for gate and up."""
    config = transformers.Phi3Config(**SHAPE, **TOKENS, **GROUPED, original_max_position_embeddings=64)
    return build(config, num_labels)


def t5(num_labels: int = 2) -> Any:
    """Encoder and decoder of 2 blocks each without biases, with a relative position bias."""
    sizes = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_heads": 4, "num_layers": 2}
    tokens = {"pad_token_id": 0, "eos_token_id": 2, "vocab_size": N_TOKENS, "decoder_start_token_id": 0}
    return build(transformers.T5Config(**sizes, **tokens), num_labels)


def bart(num_labels: int = 2) -> Any:
    """Encoder and decoder of 2 blocks each, with biases."""
    sizes = {"d_model": 32, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "max_position_embeddings": 64}
    halves = {"encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4}
    return build(transformers.BartConfig(**sizes, **halves, **TOKENS), num_labels)


def vit(num_labels: int = 2) -> Any:
    """Encoder of images: 8 pixels a side, 4 patches and the class token."""
    return build(transformers.ViTConfig(**SHAPE, image_size=8, patch_size=4), num_labels)


TEXT_FAMILIES: dict[str, Callable[..., Any]] = {
    "bert": bert,
    "roberta": roberta,
    "distilbert": distilbert,
    "electra": electra,
    "albert": albert,
    "deberta": deberta,
    "deberta-v2": deberta_v2,
    "mpnet": mpnet,
    "modernbert": modernbert,
    "gpt2": gpt2,
    "gpt_neox": gpt_neox,
    "opt": opt,
    "bloom": bloom,
    "llama": llama,
    "mistral": mistral,
    "qwen2": qwen2,
    "qwen3": qwen3,
    "gemma": gemma,
    "phi": phi,
    "phi3": phi3,
    "t5": t5,
    "bart": bart,
}
"""By transformers' name of the family."""
FAMILIES = TEXT_FAMILIES | {"vit": vit}


@cache
def outline(family: str) -> Backbone:
    """The anatomy of a family's tiny model; no weight is made."""
    with torch.device("meta"):
        return detect(FAMILIES[family](), family)


def tiny_input(model: nn.Module) -> dict[str, Tensor]:
    """Three sequences of 7, 5 and 3 tokens, padded on the right to 7; three images for a model that reads them.

    Returns:
        `input_ids` and `attention_mask`, both `(3, 7)`; or `pixel_values`, `(3, 3, 8, 8)`.
    """
    config: Any = model.config
    generator = torch.Generator().manual_seed(0)
    if hasattr(config, "patch_size"):
        return {"pixel_values": torch.randn(3, 3, 8, 8, generator=generator)}
    ids = torch.randint(5, N_TOKENS, (3, 7), generator=generator)
    lengths = torch.tensor([7, 5, 3])
    if config.is_encoder_decoder:
        ids[torch.arange(3), lengths - 1] = config.eos_token_id  # what their heads look for
    mask = (torch.arange(7) < lengths[:, None]).long()
    return {"input_ids": ids.masked_fill(mask == 0, int(config.pad_token_id)), "attention_mask": mask}
