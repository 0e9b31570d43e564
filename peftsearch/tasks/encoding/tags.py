"""Encode words with tags: a word is read and tagged at its first token, and its other tokens are not learned.

The words are joined by spaces and their tokens are found by the places of their characters, so that every fast
tokenizer reads them as it reads a text, whatever it does at the beginning of a word.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from peftsearch.errors import TaskError
from peftsearch.tasks.encoding.encoded import CHUNK, EncodedTexts, pad_token
from peftsearch.tasks.encoding.pairs import IGNORED
from peftsearch.tasks.task import Split, TagSplit


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodedTags(EncodedTexts):
    """The tokens of one split, with a tag at the first token of each word."""

    places: list[list[int]]
    """For each example the positions of the first tokens of its words, as far as they were not cut."""
    words: list[list[int]]
    """For each example the indices of these words."""

    def collate(self, indices: list[int]) -> dict[str, torch.Tensor]:
        """Pad the examples at `indices` into one batch.

        Returns:
            `input_ids`, `attention_mask`, `token_type_ids` if available, and `labels`, the tag of each word at its
            first token and `IGNORED` elsewhere; all `(batch, seq)` of int64.
        """
        batch = self.inputs(indices)
        labels = torch.full_like(batch["input_ids"], IGNORED)
        for row, i in enumerate(indices):
            labels[row, self.places[i]] = torch.tensor(self.labels[i], dtype=torch.int64)
        return batch | {"labels": labels}


def encode_tags(split: Split, tokenizer: Any, max_length: int) -> EncodedTags:
    """Tokenise the words of one split, and place their tags.

    Raises:
        TaskError: The tokenizer does not tell where a token is in its text, or has no token to pad with.
    """
    assert isinstance(split, TagSplit), "only words have tags"
    pad_id = pad_token(tokenizer)
    if not getattr(tokenizer, "is_fast", False):
        raise TaskError(
            "tagging: the model's tokenizer does not tell where its tokens are in a text; give another model"
        )
    ids: list[list[int]] = []
    segments: list[list[int]] = []
    places: list[list[int]] = []
    found: list[list[int]] = []
    n_truncated = 0
    for start in range(0, len(split), CHUNK):
        made = tokenizer(
            split.texts[start : start + CHUNK],
            truncation=True,
            max_length=max_length,
            padding=False,
            return_offsets_mapping=True,
            return_special_tokens_mask=True,
        )
        ids.extend(made["input_ids"])
        segments.extend(made.get("token_type_ids") or [])
        marks = zip(made["offset_mapping"], made["special_tokens_mask"], strict=True)
        for words, (spans, special) in zip(split.words[start : start + CHUNK], marks, strict=True):
            first = _first_tokens(words, spans, special)
            places.append(list(first.values()))
            found.append(list(first))
            n_truncated += len(first) < len(words)
    return EncodedTags(
        input_ids=ids,
        token_type_ids=segments or None,
        labels=[[tags[k] for k in own] for tags, own in zip(split.tags, found, strict=True)],
        pad_id=pad_id,
        n_truncated=n_truncated,
        places=places,
        words=found,
    )


def _first_tokens(words: list[str], spans: list[tuple[int, int]], special: list[int]) -> dict[int, int]:
    """The position of the first token of each word that has one, by the word's index."""
    owner: list[int | None] = []
    for index, word in enumerate(words):
        owner += [*([None] if index else []), *([index] * len(word))]
    first: dict[int, int] = {}
    for position, ((begin, end), mark) in enumerate(zip(spans, special, strict=True)):
        # The last character: a token may begin with the space before its word.
        at = None if mark or end <= begin else owner[end - 1]
        if at is not None:
            first.setdefault(at, position)
    return first
