"""Tokenise a task once, and cut it into batches for every trial.

Texts become lists of token ids without padding. A batch holds texts of like length, padded on the right to its
longest: on short texts that saves most of the work. Evaluation batches carry their examples' indices. Pairs of a
generation and images are encoded by `pairs` and `pixels`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Any, Protocol

import torch

from peftsearch.errors import TaskError
from peftsearch.tasks.task import ImageSplit, Split, Task

MEGA_BATCHES = 20
"""Batches whose examples are sorted by length together."""
CHUNK = 1000
"""Texts per call of the tokenizer."""


class EncodedSplit(Protocol):
    """One split as a model reads it."""

    @property
    def labels(self) -> list[int] | list[float]:
        """Class indices or targets."""

    def __len__(self) -> int:
        """The number of examples."""

    def length(self, index: int) -> int:
        """How long an example is, in whatever unit: a batch holds examples of like length."""

    def collate(self, indices: list[int]) -> dict[str, torch.Tensor]:
        """Put the examples at `indices` into one batch, with their `labels` `(batch,)`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodedTexts:
    """The token ids of one split."""

    input_ids: list[list[int]]
    """Token ids of each example, special tokens included, not padded."""
    token_type_ids: list[list[int]] | None
    """The segment of each token, where the tokenizer makes them."""
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
            `input_ids`, `attention_mask` and, where there are, `token_type_ids`, `(batch, seq)` of int64, and
            `labels`, `(batch,)` of int64 for classes or float64 for targets.
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
    """A task as a model reads it."""

    task: Task
    """What was encoded."""
    train: EncodedSplit
    """What trials train on."""
    validation: EncodedSplit
    """What trials are scored on."""
    test: EncodedSplit | None
    """What the winner is scored on once; None where there is none."""
    notes: tuple[str, ...] = ()
    """What was noticed, a sentence each."""


def encode(task: Task, tokenizer: Any, max_length: int = 128, start_id: int | None = None) -> EncodedTask:
    """Tokenise every split, or put it through an image processor.

    Args:
        task: What to encode.
        tokenizer: A transformers tokenizer; for a task on images an image processor.
        max_length: Number of tokens, special ones included, that a text is cut to.
        start_id: What the decoder of a seq2seq model starts with, for a generation; None for other models.

    Raises:
        TaskError: The tokenizer has no token to pad with, `max_length` is too small, an image cannot be read, or the
            task is on images and the model on texts, or the reverse.
    """
    if require_inputs(f"task {task.name!r}", task.train, tokenizer):
        from peftsearch.tasks.pixels import encode_images  # which stands on this module

        return encode_images(task, tokenizer)
    if task.kind == "generation":
        from peftsearch.tasks.pairs import encode_pairs  # which stands on this module

        return encode_pairs(task, tokenizer, max_length, start_id)
    least = tokenizer.num_special_tokens_to_add(pair=task.train.pairs is not None) + 1
    if max_length < least:
        raise TaskError(f"task {task.name!r}: max_length is {max_length}; this tokenizer needs at least {least}")
    train = encode_split(task.train, tokenizer, max_length)
    validation = encode_split(task.validation, tokenizer, max_length)
    test = None if task.test is None else encode_split(task.test, tokenizer, max_length)
    splits = {"train": train, "validation": validation, "test": test}
    notes = [
        f"{split.n_truncated} of {len(split)} texts of {name} are longer than {max_length} tokens and were cut"
        for name, split in splits.items()
        if split is not None and split.n_truncated
    ]
    return EncodedTask(task=task, train=train, validation=validation, test=test, notes=tuple(notes))


def require_inputs(where: str, split: Split, tokenizer: Any) -> bool:
    """Whether a split is of images; refuse one that a model cannot read.

    Args:
        where: How the message names it.
        split: What is to be read.
        tokenizer: What the model came with, see `LoadedBackbone`.

    Raises:
        TaskError: One has images and the other texts.
    """
    has_images, reads_images = isinstance(split, ImageSplit), "pixel_values" in tokenizer.model_input_names
    if has_images != reads_images:
        words = ("texts", "images")
        more = "; a folder of images goes with --kind image" if reads_images else ""
        raise TaskError(
            f"{where}: has {words[has_images]}, and the model reads {words[reads_images]}; name another with "
            f"--model, or other data{more}"
        )
    return has_images


def encode_any(split: Split, tokenizer: Any, max_length: int) -> EncodedSplit:
    """Tokenise one split of texts, or put one of images through an image processor."""
    if isinstance(split, ImageSplit):
        from peftsearch.tasks.pixels import encode_image_split  # which stands on this module

        return encode_image_split(split, tokenizer)
    return encode_split(split, tokenizer, max_length)


def encode_split(split: Split, tokenizer: Any, max_length: int) -> EncodedTexts:
    """Tokenise one split; a pair is cut at the end of its longer text."""
    pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    if pad_id is None:
        raise TaskError("tokenizer: it has neither a pad token nor an end token; set tokenizer.pad_token first")
    ids: list[list[int]] = []
    segments: list[list[int]] = []
    n_truncated = 0
    for start in range(0, len(split), CHUNK):
        texts = split.texts[start : start + CHUNK]
        pairs = None if split.pairs is None else split.pairs[start : start + CHUNK]
        if pairs is not None and not _separates_pairs(tokenizer):
            texts, pairs = [f"{text}\n{pair}" for text, pair in zip(texts, pairs, strict=True)], None
        whole = tokenizer(texts, pairs, truncation=False, padding=False, verbose=False)
        over = [i for i, row in enumerate(whole["input_ids"]) if len(row) > max_length]
        n_truncated += len(over)
        made = tokenizer(texts, pairs, truncation=True, max_length=max_length) if over else whole
        ids.extend(made["input_ids"])
        segments.extend(made.get("token_type_ids") or [])
    return EncodedTexts(
        input_ids=ids,
        token_type_ids=segments or None,
        labels=split.labels,
        pad_id=pad_id,
        n_truncated=n_truncated,
    )


def _separates_pairs(tokenizer: Any) -> bool:
    """Whether the tokenizer puts something between two texts; those of GPT-2 and Qwen run them into each other."""
    more: int = tokenizer.num_special_tokens_to_add(pair=True) - tokenizer.num_special_tokens_to_add(pair=False)
    return more > 0


def batches(split: EncodedSplit, batch_size: int, seed: int, steps: int) -> Iterator[dict[str, torch.Tensor]]:
    """Training batches: epochs without end until `steps`, every example once per epoch.

    An epoch is shuffled, cut into runs of `MEGA_BATCHES` batches, sorted by length inside each run, cut into batches,
    and these are shuffled. The last batch of an epoch may be smaller.

    Args:
        split: What to draw from; not empty.
        batch_size: Examples per batch.
        seed: The same seed gives the same batches.
        steps: Number of batches.
    """
    for indices in index_batches(split, batch_size, seed, steps):
        yield split.collate(indices)


def index_batches(split: EncodedSplit, batch_size: int, seed: int, steps: int) -> Iterator[list[int]]:
    """The indices of the examples of `batches`, which take no time to skip."""
    rng, made = Random(seed), 0
    while made < steps:
        for indices in epoch(split, batch_size, rng):
            if made == steps:
                return
            made += 1
            yield indices


def epoch(split: EncodedSplit, batch_size: int, rng: Random) -> list[list[int]]:
    """The indices of one epoch's batches."""
    assert len(split) > 0, "an epoch needs examples"
    assert batch_size > 0, "a batch needs a size"
    order = list(range(len(split)))
    rng.shuffle(order)
    mega = MEGA_BATCHES * batch_size
    cut: list[list[int]] = []
    for start in range(0, len(order), mega):
        run = sorted(order[start : start + mega], key=split.length)
        cut.extend(run[i : i + batch_size] for i in range(0, len(run), batch_size))
    rng.shuffle(cut)
    return cut


def eval_batches(split: EncodedSplit, batch_size: int) -> Iterator[tuple[list[int], dict[str, torch.Tensor]]]:
    """Every example once, sorted by length.

    Yields:
        The indices of the examples in the split, and their batch.
    """
    order = sorted(range(len(split)), key=split.length)
    for start in range(0, len(order), batch_size):
        indices = order[start : start + batch_size]
        yield indices, split.collate(indices)
