"""Tiny random language models with a tokenizer, and a task of prompts and completions in files."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PretrainedConfig, PreTrainedTokenizerFast

from tests.runs import QUICK
from tests.tiny import GROUPED, SHAPE, SIZES, TOKENS

PAD, START, END, UNK = range(4)
SPECIALS = ["<pad>", "<s>", "</s>", "<unk>"]
PLACES = ["north", "south", "east", "west"]
WORDS = ["name", "area", "the", "inn", "is", "in", "stands", "a", "place", "old", "new", "at", "of", *PLACES]
IDS = TOKENS | {"pad_token_id": PAD, "bos_token_id": START, "eos_token_id": END}
SEQ2SEQ = {"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "decoder_start_token_id": END}
CONFIGS: dict[str, Any] = {
    "gpt2": lambda: transformers.GPT2Config(n_embd=32, n_layer=4, n_head=4, n_positions=64, **IDS),
    "llama": lambda: transformers.LlamaConfig(**SHAPE, **IDS, **GROUPED),
    "opt": lambda: transformers.OPTConfig(
        **SIZES, ffn_dim=64, word_embed_proj_dim=32, max_position_embeddings=64, **IDS
    ),
    "mistral": lambda: transformers.MistralConfig(**SHAPE, **IDS, **GROUPED, sliding_window=8),
    "qwen2": lambda: transformers.Qwen2Config(**SHAPE, **IDS, **GROUPED),
    "qwen3": lambda: transformers.Qwen3Config(**SHAPE, **IDS, **GROUPED, head_dim=16),
    "gemma": lambda: transformers.GemmaConfig(**SHAPE, **IDS, **GROUPED, head_dim=16),
    "gpt_neox": lambda: transformers.GPTNeoXConfig(**SHAPE, **IDS, max_position_embeddings=64),
    "bloom": lambda: transformers.BloomConfig(hidden_size=32, n_layer=4, n_head=4, **IDS),
    "phi": lambda: transformers.PhiConfig(**SHAPE, **IDS, max_position_embeddings=64),
    "phi3": lambda: transformers.Phi3Config(**SHAPE, **IDS, **GROUPED, original_max_position_embeddings=64),
    "bart": lambda: transformers.BartConfig(
        **SEQ2SEQ, encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=64, decoder_ffn_dim=64,
        max_position_embeddings=64, forced_eos_token_id=None, **IDS,
    ),
    "t5": lambda: transformers.T5Config(
        d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, decoder_start_token_id=PAD, **IDS
    ),
}  # fmt: skip  # a line a family
"""The families that generation is tested on."""


def build(family: str) -> Any:
    """A random model whose output varies with its input: twice the usual initial spread."""
    config: PretrainedConfig = CONFIGS[family]()
    kind = transformers.AutoModelForSeq2SeqLM if config.is_encoder_decoder else transformers.AutoModelForCausalLM
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = kind.from_config(config).eval()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.dim() > 1 and "embed" not in name and "shared" not in name:
                    parameter.normal_(std=0.3)
    return model


def word_tokenizer(seq2seq: bool) -> PreTrainedTokenizerFast:
    """A word tokenizer of 99 tokens; with `seq2seq` it ends every text with the end token, as those of T5 do."""
    words = [*SPECIALS, *WORDS, *(f"w{i}" for i in range(99 - len(SPECIALS) - len(WORDS)))]
    inner = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    if seq2seq:
        inner.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", END)])
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def save_generator(path: Path, family: str) -> Path:
    """A model and its tokenizer in a folder."""
    model = build(family)
    model.save_pretrained(path)
    word_tokenizer(model.config.is_encoder_decoder).save_pretrained(path)
    return path


def save_pairs(folder: Path, n_train: int = 24, n_validation: int = 8, seed: int = 0) -> tuple[Path, Path]:
    """Prompts with two references each, in two JSONL files; no prompt is in both."""
    rng = random.Random(seed)
    prompts = [f"name w{i} area {rng.choice(PLACES)}" for i in range((n_train + n_validation) // 2)]
    rows = []
    for prompt in prompts:
        _, name, _, area = prompt.split()
        texts = (f"{name} is in the {area}", f"the inn {name} stands in the {area}")
        rows += [json.dumps({"meaning_representation": prompt, "reference": text}) + "\n" for text in texts]
    paths = folder / "pairs-train.jsonl", folder / "pairs-validation.jsonl"
    paths[0].write_text("".join(rows[:n_train]))
    paths[1].write_text("".join(rows[n_train:]))
    return paths


def generate_arguments(model: Path, files: tuple[Path, Path], runs: Path, *more: str) -> list[str]:
    """`peftsearch run` on a tiny generator and task; a few seconds."""
    return [
        "run", "--kind", "generation", "--budget", "20%", "--model", str(model), "--train", str(files[0]),
        "--validation", str(files[1]), "--trials", "2", "--strategy", QUICK, "--steps", "4", "--search-steps", "2",
        "--seeds", "2", "--batch-size", "8", "--runs", str(runs), "--name", "r", "--device", "cpu", *more,
    ]  # fmt: skip
