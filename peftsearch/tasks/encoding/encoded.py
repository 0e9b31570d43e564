"""Encoded splits of a task, in the form that a model reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch

from peftsearch.tasks.task import Task


class EncodedSplit(Protocol):
    """One split in the form that a model reads."""

    @property
    def labels(self) -> list[int] | list[float]:
        """Class indices or targets."""

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
    labels: list[int] | list[float]
    """Class indices or targets."""
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
            `(batch,)` of int64 for classes or float64 for targets.
        """
        rows = [self.input_ids[i] for i in indices]
        width = max(map(len, rows))
        batch = {
            "input_ids": torch.tensor([row + [self.pad_id] * (width - len(row)) for row in rows]),
            "attention_mask": torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows]),
        }
        if self.token_type_ids is not None:
            segments = [self.token_type_ids[i] for i in indices]
            batch["token_type_ids"] = torch.tensor([row + [0] * (width - len(row)) for row in segments])
        return batch | {"labels": collate_labels(self.labels, indices)}


def collate_labels(labels: list[int] | list[float], indices: list[int]) -> torch.Tensor:
    """The labels at `indices`, `(batch,)` of int64 for classes or float64 for targets."""
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


CHUNK = 1000
"""Texts per call of the tokenizer."""
