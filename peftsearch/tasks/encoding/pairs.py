"""Tokenise prompts and completions; the loss covers the completion only, and generation starts after the prompt.

The two are tokenised separately, so that a prompt has the same tokens in training and in generation. A causal model
reads the completion after the prompt, a seq2seq model reads the prompt in its encoder. Training batches are padded on
the right; prompts that a causal model continues are padded on the left, so that all end where the first new token goes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from peftsearch.errors import TaskError
from peftsearch.tasks.encoding.encoded import CHUNK, EncodedTask, EncodedTexts, encode_splits, pad_right, padded
from peftsearch.tasks.task import Split, Task

IGNORED = -100
"""Label of a position that the loss ignores; the default of torch's cross-entropy."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodedPairs(EncodedTexts):
    """The token ids of one split of a generation task; the model reads `input_ids` in training."""

    prompts: list[list[int]]
    """Token ids of each prompt."""
    completions: list[list[int]]
    """Token ids of each completion, including the end token."""
    groups: list[list[int]]
    """Rows of each distinct prompt, in order of appearance: one example and its references."""
    references: list[str]
    """Completion of each row as text."""
    start_id: int | None
    """Start token of the decoder of a seq2seq model; None for a causal model."""
    end_id: int
    """Token that ends a completion."""
    max_new: int
    """Most tokens to generate: the length of the longest completion in train, within the maximum length."""
    tokenizer: Any
    """Tokenizer that turns generated tokens into text."""

    def collate(self, indices: list[int]) -> dict[str, torch.Tensor]:
        """Pad the examples at `indices` into one training batch.

        Returns:
            `input_ids`, `attention_mask` `(batch, seq)`; for a seq2seq model `decoder_input_ids` `(batch, n)`; and
            `labels`, the token to predict at each output, `(batch, seq)` or `(batch, n)`, `IGNORED` elsewhere.
        """
        batch = padded([self.input_ids[i] for i in indices], self.pad_id)
        learnt = [self.completions[i] for i in indices]
        if self.start_id is None:
            labels = [[IGNORED] * (len(self.prompts[i]) - 1) + self.completions[i] for i in indices]
        else:
            labels = learnt
            batch["decoder_input_ids"] = pad_right([[self.start_id, *row[:-1]] for row in learnt], self.pad_id)
        return batch | {"labels": pad_right(labels, IGNORED)}

    def collate_prompts(self, indices: Sequence[int]) -> dict[str, torch.Tensor]:
        """Pad the prompts at `indices` into one batch to generate from.

        Returns:
            `input_ids` and `attention_mask`, `(batch, seq)`.
        """
        return padded([self.prompts[i] for i in indices], self.pad_id, left=self.start_id is None)


def encode_pairs(task: Task, tokenizer: Any, max_length: int, start_id: int | None) -> EncodedTask:
    """Tokenise every split of a generation task.

    A prompt that leaves too little room is cut at its beginning for a causal model, at its end for a seq2seq model;
    completions are cut at their end. The room is the length of the longest completion in train, within `max_length`.

    Args:
        task: The task, whose `texts` are prompts and whose `pairs` are completions.
        tokenizer: A transformers tokenizer with a padding token.
        max_length: Most tokens of prompt and completion together; for a seq2seq model, of each of them.
        start_id: Start token of the decoder of a seq2seq model; None for a causal model.

    Raises:
        TaskError: The tokenizer has no token that ends a text.
    """
    tokens = partial(_tokens, tokenizer=tokenizer, end_id=_end_token(tokenizer), seq2seq=start_id is not None)
    longest = max(len(c) for c in tokens(task.train.pairs or [], ends=True))
    room = min(longest, max_length)
    if start_id is None:
        room = min(longest, max(max_length // 2, max_length - max(map(len, tokens(task.train.texts, ends=False)))))
    own = partial(encode_pair_split, tokenizer=tokenizer, max_length=max_length, start_id=start_id, room=room)
    return encode_splits(task, own, "rows", max_length)


def encode_pair_split(split: Split, tokenizer: Any, max_length: int, start_id: int | None, room: int) -> EncodedPairs:
    """Tokenise one split for a task that was already encoded.

    Args:
        split: Prompts and completions.
        tokenizer: A transformers tokenizer with a padding token.
        max_length: Most tokens, as in `encode_pairs`.
        start_id: Start token of the decoder of a seq2seq model; None for a causal model.
        room: The `max_new` of the training split.

    Raises:
        TaskError: The tokenizer has no token that ends a text.
    """
    end_id = _end_token(tokenizer)
    tokens = partial(_tokens, tokenizer=tokenizer, end_id=end_id, seq2seq=start_id is not None)
    prompts, completions = tokens(split.texts, ends=False), tokens(split.pairs or [], ends=True)
    lengths = (max_length - room if start_id is None else max_length, max_length)
    return _fit(split, prompts, completions, lengths, room, start_id, end_id, tokenizer)


def rows_by_prompt(split: Split) -> list[list[int]]:
    """The rows of each distinct prompt, in order of appearance."""
    rows: dict[str, list[int]] = {}
    for i, text in enumerate(split.texts):
        rows.setdefault(text, []).append(i)
    return list(rows.values())


def _end_token(tokenizer: Any) -> int:
    end_id: int | None = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.sep_token_id
    if end_id is None:
        raise TaskError("tokenizer: it has no token that ends a text; set tokenizer.eos_token first")
    return end_id


def _fit(
    split: Split,
    prompts: list[list[int]],
    completions: list[list[int]],
    lengths: tuple[int, int],
    room: int,
    start_id: int | None,
    end_id: int,
    tokenizer: Any,
) -> EncodedPairs:
    """Cut prompts and whole rows to their limits, and group the rows by prompt."""
    limit, whole = lengths
    causal = start_id is None
    short = [(row[-limit:] if causal else row[:limit]) for row in prompts]
    ends = [c[: whole - len(p) if causal else whole] for p, c in zip(short, completions, strict=True)]
    pairs = list(zip(short, ends, strict=True))
    originals = zip(prompts, completions, strict=True)
    return EncodedPairs(
        # A causal model predicts the last token and does not read it.
        input_ids=[(p + c)[:-1] for p, c in pairs] if causal else short,
        token_type_ids=None,
        labels=split.labels,
        pad_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else end_id,
        n_truncated=sum((p, c) != pair for (p, c), pair in zip(originals, pairs, strict=True)),
        prompts=short,
        completions=ends,
        groups=rows_by_prompt(split),
        references=[text.strip() for text in split.pairs or []],
        start_id=start_id,
        end_id=end_id,
        max_new=room,
        tokenizer=tokenizer,
    )


def _tokens(texts: list[str], *, ends: bool, tokenizer: Any, end_id: int, seq2seq: bool) -> list[list[int]]:
    """Token ids of prompts, or of completions, which end with the end token.

    Seq2seq texts have the special tokens that their tokenizer adds. A causal model's prompt keeps those at its
    beginning, and its completion has only the end token.
    """
    rows: list[list[int]] = []
    for start in range(0, len(texts), CHUNK):
        chunk = [text.strip() if seq2seq else text for text in texts[start : start + CHUNK]]
        own = seq2seq or not ends
        rows.extend(
            tokenizer(chunk, add_special_tokens=own, padding=False, truncation=False, verbose=False)["input_ids"]
        )
    if ends:
        return [row if row[-1:] == [end_id] else [*row, end_id] for row in rows]
    closing = {tokenizer.eos_token_id, tokenizer.sep_token_id}
    bare = [row[:-1] if not seq2seq and row[-1:] and row[-1] in closing else row for row in rows]
    return [row or [end_id] for row in bare]  # a causal model needs at least one token to continue
