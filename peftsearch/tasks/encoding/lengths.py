"""A maximum length that follows from the data."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import Any

from peftsearch.tasks.encoding.chats import require_template, tokens_of
from peftsearch.tasks.encoding.encode import encode_split
from peftsearch.tasks.task import ChatSplit, Split, Task, TokenSplit

QUANTILE = 0.99
"""Share of the training examples that the length has room for."""
STEP, LEAST = 8, 16
MOST = {"generation": 1024}
"""Most tokens without being asked for more, by kind of task; others have `MOST_OF_TEXTS`."""
MOST_OF_TEXTS = 512
_LOOKED_AT = 2000
"""Training examples of a task that are looked at."""


def length_for(tasks: Sequence[Task], tokenizer: Any, limit: int | None) -> int:
    """The length that 99% of the training examples fit into, in whole steps.

    Args:
        tasks: The tasks, of texts.
        tokenizer: The model's tokenizer.
        limit: Positions of the model; None without a limit.
    """
    found = LEAST
    for task in tasks:
        lengths = sorted(_lengths(task.train, task.kind, tokenizer))
        wanted = lengths[min(len(lengths) - 1, ceil(QUANTILE * len(lengths)) - 1)]
        found = max(found, min(STEP * ceil(wanted / STEP), MOST.get(task.kind, MOST_OF_TEXTS)))
    return found if limit is None else min(found, limit)


def _lengths(train: Split, kind: str, tokenizer: Any) -> list[int]:
    """Tokens of the training examples, or of every k-th of many."""
    part = train.take(list(range(0, len(train), ceil(len(train) / _LOOKED_AT))))
    if isinstance(part, TokenSplit):
        return [len(ids) for ids in part.input_ids]
    if isinstance(part, ChatSplit):
        require_template(tokenizer)
        return [len(tokens_of(chat, tokenizer, f"chat {i + 1}")[0]) for i, chat in enumerate(part.chats)]
    if kind == "generation":
        joined = [f"{text}{more}" for text, more in zip(part.texts, part.pairs or [], strict=True)]
        own = Split(texts=joined, pairs=None, labels=part.labels)
        return [n + 1 for n in _tokens(own, tokenizer)]  # and the end token
    return _tokens(part, tokenizer)


def _tokens(split: Split, tokenizer: Any) -> list[int]:
    return list(map(len, encode_split(split, tokenizer, max_length=1_000_000).input_ids))
