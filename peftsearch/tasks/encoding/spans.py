"""Encode questions with contexts: an answer is its first and its last token in the context.

The first token of the input stands for "no answer" (SQuAD 2.0, arXiv 1806.03822); it and the tokens of the context are
the candidates, and the loss knows no others. A context that is too long is cut at its end, and an answer behind the
cut is taught as none.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from peftsearch.errors import TaskError, one_line
from peftsearch.tasks.encoding.encoded import CHUNK, EncodedTexts, pad_token, separates_pairs
from peftsearch.tasks.encoding.pairs import IGNORED
from peftsearch.tasks.task import AnswerSplit, Split

_Candidate = tuple[int, tuple[int, int]]
"""Position of a token of the context, and its characters there, from and to."""
FIRST, LAST = 1, 2
"""Marks of an answer's first and last token; a single token has both."""
MOST_TOKENS = 30
"""Most tokens of a predicted answer, as in the usual evaluation of SQuAD."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodedSpans(EncodedTexts):
    """The tokens of one split of questions; its labels are a mark for each candidate."""

    places: list[list[int]]
    """For each example the positions of its candidates, that of "no answer" first."""
    spans: list[list[tuple[int, int]]]
    """For each example the characters of its candidates in the context, from and to; (0, 0) for "no answer"."""
    contexts: list[str]
    """The context of each example."""
    references: list[list[str]]
    """The right answers of each example; none where the context has none."""

    def collate(self, indices: list[int]) -> dict[str, Tensor]:
        """Pad the examples at `indices` into one batch.

        Returns:
            `input_ids`, `attention_mask` and, if available, `token_type_ids`, `(batch, seq)` of int64; and `labels`
            `(batch, seq, 2)` of int64: 1 at the first token of the answer, and at the last one, 0 at the other
            candidates and `IGNORED` elsewhere.
        """
        batch = self.inputs(indices)
        labels = torch.full((*batch["input_ids"].shape, 2), IGNORED)
        for row, i in enumerate(indices):
            marks = torch.tensor(self.labels[i], dtype=torch.int64)
            labels[row, self.places[i]] = torch.stack([marks & FIRST, (marks & LAST) // LAST], dim=1)
        return batch | {"labels": labels}

    def take(self, indices: list[int]) -> EncodedSpans:
        """The examples at `indices`, in that order."""
        segments = self.token_type_ids
        return EncodedSpans(
            input_ids=[self.input_ids[i] for i in indices],
            token_type_ids=None if segments is None else [segments[i] for i in indices],
            labels=[self.labels[i] for i in indices],  # type: ignore[arg-type]  # marks are lists
            pad_id=self.pad_id,
            places=[self.places[i] for i in indices],
            spans=[self.spans[i] for i in indices],
            contexts=[self.contexts[i] for i in indices],
            references=[self.references[i] for i in indices],
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """A predicted answer."""

    text: str
    """Empty where the context has none."""
    start: int | None
    """Its first character in the context; None without an answer."""
    probability: float
    """Of its first and last token together."""


def encode_spans(split: Split, tokenizer: Any, max_length: int) -> EncodedSpans:
    """Tokenise the questions and contexts of one split, and place their answers.

    Raises:
        TaskError: The tokenizer does not tell where a token is in its text, or has no token to pad with, or a question
            leaves no room for its context.
    """
    assert isinstance(split, AnswerSplit), "only questions have answers"
    pad_id = pad_token(tokenizer)
    if not getattr(tokenizer, "is_fast", False):
        raise TaskError("questions: the model's tokenizer does not tell where its tokens are; give another model")
    _require_room(split, tokenizer, max_length)
    ids: list[list[int]] = []
    segments: list[list[int]] = []
    labels: list[list[int]] = []
    found: list[list[_Candidate]] = []
    n_cut = 0
    for start in range(0, len(split), CHUNK):
        contexts = split.contexts[start : start + CHUNK]
        made, candidates = _tokenised(split.texts[start : start + CHUNK], contexts, tokenizer, max_length)
        ids.extend(made["input_ids"])
        segments.extend(made.get("token_type_ids") or [])
        found.extend(candidates)
        for row, own, context, span in zip(
            made["input_ids"], candidates, contexts, split.spans[start : start + CHUNK], strict=True
        ):
            is_cut = len(row) >= max_length and (not own or own[-1][1][1] < len(context.rstrip()))
            n_cut += is_cut
            labels.append(_marks([characters for _, characters in own], span, is_cut))
    return EncodedSpans(
        input_ids=ids,
        token_type_ids=segments or None,
        labels=labels,
        pad_id=pad_id,
        n_truncated=n_cut,
        places=[[0, *(place for place, _ in own)] for own in found],
        spans=[[(0, 0), *(characters for _, characters in own)] for own in found],
        contexts=split.contexts,
        references=split.references,
    )


def _tokenised(
    questions: list[str], contexts: list[str], tokenizer: Any, max_length: int
) -> tuple[Any, list[list[_Candidate]]]:
    """The tokens of questions with their contexts, and those that are of the contexts."""
    apart = separates_pairs(tokenizer)
    texts = questions if apart else [f"{q}\n{c}" for q, c in zip(questions, contexts, strict=True)]
    with _cutting_ends(tokenizer):
        made = tokenizer(
            texts,
            contexts if apart else None,
            truncation="only_second" if apart else True,
            max_length=max_length,
            padding=False,
            return_offsets_mapping=True,
        )
    found = []
    for i, question in enumerate(questions):
        shift = 0 if apart else len(question) + 1
        tokens = enumerate(zip(made["offset_mapping"][i], made.sequence_ids(i), strict=True))
        found.append(
            [
                (place, (max(0, begin - shift), end - shift))
                for place, ((begin, end), owner) in tokens
                if place and owner == int(apart) and end > max(begin, shift)
            ]
        )
    return made, found


def best_spans(logits: Tensor, encoded: EncodedSpans) -> list[Span]:
    """The most probable answers.

    Args:
        logits: Outputs `(candidates of all examples, 2)`: of being an answer's first and last token.
        encoded: What the model read.
    """
    found = []
    for i, own in enumerate(logits.double().split_with_sizes([len(row) for row in encoded.places])):
        logs = own.log_softmax(dim=0)
        none = float(logs[0].sum())
        # Row k: answers that begin at candidate k, with 1 to MOST_TOKENS tokens.
        ends = torch.cat([logs[1:, 1], logs.new_full((MOST_TOKENS - 1,), -torch.inf)])
        sums = logs[1:, 0, None] + ends.unfold(0, MOST_TOKENS, 1) if len(logs) > 1 else logs.new_zeros(0, 1)
        if sums.numel() == 0 or none >= float(sums.max()):
            found.append(Span(text="", start=None, probability=float(logs[0].sum().exp())))
            continue
        first, more = divmod(int(sums.argmax()), MOST_TOKENS)
        begin, end = encoded.spans[i][first + 1][0], encoded.spans[i][first + more + 1][1]
        context = encoded.contexts[i]
        while end < len(context) and unicodedata.combining(context[end]):
            end += 1  # an accent that the tokenizer drops belongs to its letter
        text = context[begin:end]
        begin += len(text) - len(text.lstrip())  # a token may begin with the space before its word
        found.append(Span(text=text.strip(), start=begin, probability=float(sums.max().exp())))
    return found


@contextmanager
def _cutting_ends(tokenizer: Any) -> Iterator[None]:
    """Let a tokenizer cut at the end while the `with` block lasts: a context's beginning is as good as its end."""
    side = tokenizer.truncation_side
    tokenizer.truncation_side = "right"
    try:
        yield
    finally:
        tokenizer.truncation_side = side


def _marks(own: list[tuple[int, int]], span: list[int], is_cut: bool) -> list[int]:
    """The mark of each candidate; that of "no answer" comes first, also where the answer is cut off."""
    marks = [0] * (len(own) + 1)
    begin, end = span or (0, 0)
    within = [k for k, (at, to) in enumerate(own) if to > begin and at < end]
    if not within or (is_cut and own[-1][1] < end):
        marks[0] = FIRST | LAST
        return marks
    first, last = within[0], within[-1]
    marks[first + 1] |= FIRST
    marks[last + 1] |= LAST
    return marks


def _require_room(split: AnswerSplit, tokenizer: Any, max_length: int) -> None:
    """Refuse questions that fill the whole input."""
    special = tokenizer.num_special_tokens_to_add(pair=True)
    for start in range(0, len(split), CHUNK):
        questions = split.texts[start : start + CHUNK]
        for i, ids in enumerate(tokenizer(questions, add_special_tokens=False, verbose=False)["input_ids"]):
            if len(ids) + special + 1 > max_length:
                raise TaskError(
                    f"question {start + i + 1} ({one_line(questions[i], 60)!r}) has {len(ids)} tokens and leaves no "
                    f"room for its context in {max_length}; give a larger --max-length"
                )
