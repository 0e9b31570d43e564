"""Give an exported model of answers the class that transformers has for them.

It is trained as a classifier of tokens with two outputs, since every family has one and loads it alike. Where the
family's class for question answering has the same weights but for the name of the head, the folder becomes one of it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from peftsearch.backbone.load import quiet

_HEAD = "qa_outputs"
"""The head of transformers' classes for question answering."""


def as_answers(model: Any, head: tuple[str, ...], directory: Path) -> str | None:
    """Rewrite a merged export with the class for question answering.

    Args:
        model: The classifier of tokens that was exported.
        head: Paths of its head.
        directory: Its folder.

    Returns:
        A line for the user; None where the family has no such class, or one of other weights, and nothing is changed.
    """
    from transformers import MODEL_FOR_QUESTION_ANSWERING_MAPPING, AutoConfig

    config = AutoConfig.from_pretrained(directory)
    if type(config) not in MODEL_FOR_QUESTION_ANSWERING_MAPPING or len(head) != 1:
        return None
    with quiet():
        plain = type(model).from_pretrained(directory, config=config, dtype="auto")
        with torch.random.fork_rng(devices=[]):
            other = MODEL_FOR_QUESTION_ANSWERING_MAPPING[type(config)](config).to(plain.dtype)
        weights = {
            name.replace(f"{head[0]}.", f"{_HEAD}.", 1) if name.startswith(f"{head[0]}.") else name: value
            for name, value in plain.state_dict().items()
        }
        there = {name: value.shape for name, value in other.state_dict().items()}
        if there != {name: value.shape for name, value in weights.items()}:
            return None
        other.load_state_dict(weights)
        other.save_pretrained(directory)
    return f"As {type(other).__name__}, with the head's two outputs as start_logits and end_logits"
