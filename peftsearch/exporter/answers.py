"""Give an exported model of answers the class that transformers has for them.

It is trained as a classifier of tokens with two outputs, since every family has one and loads it alike. Where the
family's class for question answering has the same weights but for the name of the head, the folder becomes one of it.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch

from peftsearch.backbone.quiet import quiet

_HEAD = "qa_outputs"
"""The head of transformers' classes for question answering."""


def as_answers(model: Any, head: tuple[str, ...], directory: Path) -> str | None:
    """Rewrite a merged export with the class for question answering.

    Args:
        model: The classifier of tokens that was exported.
        head: Paths of its head.
        directory: Its folder.

    Returns:
        A line for the user; None where the family has no such class, or one of other weights or outputs, and nothing is
        changed.
    """
    from transformers import MODEL_FOR_QUESTION_ANSWERING_MAPPING

    config = copy.deepcopy(model.config)
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
        if not _equal(plain.eval(), other.eval()):
            return None
        other.save_pretrained(directory)
    return f"As {type(other).__name__}, with the head's two outputs as start_logits and end_logits"


@torch.no_grad()
def _equal(plain: Any, other: Any) -> bool:
    """Whether the two give the same outputs on a few tokens."""
    n = plain.get_input_embeddings().num_embeddings
    ids = torch.arange(5, 21).view(2, 8) % n
    wanted, found = plain(input_ids=ids).logits, other(input_ids=ids)
    return torch.allclose(wanted, torch.stack([found.start_logits, found.end_logits], dim=-1), atol=1e-5)
