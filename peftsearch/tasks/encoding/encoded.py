"""Encoded splits of a task, in the form that a model reads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from peftsearch.errors import TaskError
from peftsearch.tasks.kinds import Answers
from peftsearch.tasks.task import Split, Task

CHUNK = 1000
"""Texts per call of the tokenizer."""


class EncodedSplit(Protocol):
    """One split in the form that a model reads."""

    @property
    def labels(self) -> Answers:
        """Class indices, targets, tags of the words, or a 1 or 0 for every class."""

    def __len__(self) -> int:
        """The number of examples."""

    def length(self, index: int) -> int:
        """Length of an example, in any unit; a batch holds examples of similar length."""

    def collate(self, indices: list[int]) -> dict[str, torch.Tensor]:
        """Put the examples at `indices` into one batch, with their `labels` `(batch,)`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodedTexts:
    """The token ids of one split."""

    input_ids: list[list[int]]
    """Token ids of each example, special tokens included, not padded."""
    token_type_ids: list[list[int]] | None
    """The segment of each token; None where the tokenizer does not make segments."""
    labels: Answers
    """Class indices, targets, tags of the words, or a 1 or 0 for every class."""
    pad_id: int
    """The token that pads a batch."""
    n_truncated: int = 0
    """Number of examples that were cut to the maximum length."""

    def __len__(self) -> int:
        """The number of examples."""
        return len(self.input_ids)

    def length(self, index: int) -> int:
        """The number of tokens of an example."""
        return len(self.input_ids[index])

    def collate(self, indices: list[int]) -> dict[str, torch.Tensor]:
        """Pad the examples at `indices` into one batch.

        Returns:
            `input_ids`, `attention_mask` and, if available, `token_type_ids`, `(batch, seq)` of int64; and `labels`,
            `(batch,)` of int64 for classes or float64 for targets, or `(batch, classes)` of int64 for several classes.
        """
        return self.inputs(indices) | {"labels": collate_labels(self.labels, indices)}

    def inputs(self, indices: list[int]) -> dict[str, torch.Tensor]:
        """Pad the tokens of the examples at `indices` into one batch, without labels."""
        batch = padded([self.input_ids[i] for i in indices], self.pad_id)
        if self.token_type_ids is not None:
            batch["token_type_ids"] = pad_right([self.token_type_ids[i] for i in indices], 0)
        return batch


def pad_token(tokenizer: Any) -> int:
    """The token that pads a batch: the tokenizer's own, or its end token.

    Raises:
        TaskError: It has neither.
    """
    found: int | None = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    if found is None:
        raise TaskError("tokenizer: it has neither a pad token nor an end token; set tokenizer.pad_token first")
    return found


def separates_pairs(tokenizer: Any) -> bool:
    """Whether the tokenizer puts a special token between two texts; GPT-2's and Qwen's just join them."""
    more: int = tokenizer.num_special_tokens_to_add(pair=True) - tokenizer.num_special_tokens_to_add(pair=False)
    return more > 0


def padded(rows: list[list[int]], pad_id: int, left: bool = False) -> dict[str, torch.Tensor]:
    """Pad rows of tokens on one side: `input_ids` and `attention_mask`, `(batch, longest)` of int64."""
    mask = [[1] * len(row) for row in rows]
    if not left:
        return {"input_ids": pad_right(rows, pad_id), "attention_mask": pad_right(mask, 0)}
    turned = [row[::-1] for row in rows]
    return {"input_ids": pad_right(turned, pad_id).flip(1), "attention_mask": pad_right(mask, 0).flip(1)}


def pad_right(rows: list[list[int]], fill: int) -> torch.Tensor:
    """Pad rows on the right to `(batch, longest)` of int64."""
    width = max(map(len, rows))
    return torch.tensor([row + [fill] * (width - len(row)) for row in rows])


def collate_labels(labels: Answers, indices: list[int]) -> torch.Tensor:
    """The labels at `indices`: `(batch,)` of int64 or, for targets, float64; of several classes `(batch, classes)`."""
    chosen = [labels[i] for i in indices]
    return torch.tensor(chosen, dtype=torch.float64 if isinstance(chosen[0], float) else torch.int64)


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodedTask:
    """A task in the form that a model reads."""

    task: Task
    """The task before encoding."""
    train: EncodedSplit
    """Examples that trials train on."""
    validation: EncodedSplit
    """Examples that trials are scored on."""
    test: EncodedSplit | None
    """Examples that the winner is scored on once; None without a test split."""
    notes: tuple[str, ...] = ()
    """Notes for the user, one sentence each."""


def encode_splits(task: Task, encode: Callable[[Split], EncodedTexts], rows: str, max_length: int) -> EncodedTask:
    """Tokenise every split of a task in the same way.

    Args:
        task: The task.
        encode: Tokenises one split.
        rows: What the examples are called in notes, in the plural.
        max_length: The length in notes that longer examples were cut to.
    """
    given = {"train": task.train, "validation": task.validation, "test": task.test}
    splits = {name: encode(split) for name, split in given.items() if split is not None}
    notes = [
        f"{split.n_truncated} of {len(split)} {rows} of {name} are longer than {max_length} tokens and were cut"
        for name, split in splits.items()
        if split.n_truncated
    ]
    return EncodedTask(
        task=task,
        train=splits["train"],
        validation=splits["validation"],
        test=splits.get("test"),
        notes=tuple(notes),
    )
