"""What a task is: texts or images with labels in splits, a metric, and where it all came from."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from peftsearch.tasks.kinds import Kind
from peftsearch.tasks.reading.columns import Columns


@dataclass(frozen=True, kw_only=True, slots=True)
class Split:
    """The examples of one split, column by column; all columns have the same length."""

    texts: list[str]
    """The text, or the first text of each pair, or the prompt of a generation."""
    pairs: list[str] | None
    """The second text of each pair, or the completion of each prompt; None for a task on single texts."""
    labels: list[int] | list[float]
    """Indices of classes, or the targets of a regression; zeros for a generation."""

    def __post_init__(self) -> None:
        """Hold the columns to one length."""
        assert len(self.texts) == len(self.labels), "texts and labels differ in length"
        assert self.pairs is None or len(self.pairs) == len(self.texts), "texts and pairs differ in length"

    def __len__(self) -> int:
        """The number of examples."""
        return len(self.texts)

    def rows(self) -> list[tuple[str, str | None]]:
        """The text and the second text of every example."""
        pairs: Sequence[str | None] = [None] * len(self) if self.pairs is None else self.pairs
        return list(zip(self.texts, pairs, strict=True))

    def take(self, indices: list[int]) -> Split:
        """The examples at `indices`, in that order."""
        return Split(
            texts=[self.texts[i] for i in indices],
            pairs=None if self.pairs is None else [self.pairs[i] for i in indices],
            labels=[self.labels[i] for i in indices],
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageSplit(Split):
    """The images of one split; `texts` are the names by which messages tell them."""

    images: list[bytes]
    """The file of each image, as it is: PNG, JPEG, ..."""

    def rows(self) -> list[tuple[str, str | None]]:
        """A SHA-256 of every image: equal images are equal rows, whatever they are called."""
        return [(hashlib.sha256(image).hexdigest(), None) for image in self.images]

    def take(self, indices: list[int]) -> ImageSplit:
        """The images at `indices`, in that order."""
        return ImageSplit(
            texts=[self.texts[i] for i in indices],
            pairs=None,
            labels=[self.labels[i] for i in indices],
            images=[self.images[i] for i in indices],
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """A supervised task on texts or images."""

    name: str
    """A short name for tables and folders."""
    kind: Kind
    """Whether labels are classes or numbers, or completions are to be written."""
    labels: tuple[str, ...]
    """The names of the classes, by index; empty for the other kinds."""
    train: Split
    """What trials train on."""
    validation: Split
    """What trials are scored on."""
    test: Split | None
    """What the winner is scored on once, at the end; None where there is none."""
    metric: str
    """A name of the table of metrics."""
    source: str
    """Where the data came from, in words that `best.yaml` keeps."""
    columns: Columns | None = None
    """The columns of the tables that it was read from; None where it was generated."""
    notes: tuple[str, ...] = ()
    """What was guessed or noticed while the data were read, a sentence each."""
    fingerprint: str = field(default="")
    """The first 16 hex digits of a SHA-256 over the content; computed where it is not given."""

    def __post_init__(self) -> None:
        """Compute the fingerprint where it is not given."""
        if not self.fingerprint:
            object.__setattr__(self, "fingerprint", self._digest())

    @property
    def num_labels(self) -> int:
        """The width of the head: the number of classes, or 1 for a regression; a generation has no head."""
        return {"classification": len(self.labels), "regression": 1, "generation": 0}[self.kind]

    @property
    def has_images(self) -> bool:
        """Whether its examples are images."""
        return isinstance(self.train, ImageSplit)

    @property
    def majority_score(self) -> float:
        """The validation score of always answering the majority class of train; 0.0 for the other kinds.

        What a generation is held against is the frozen model's own score (`LocalEngine.frozen`).
        """
        if self.kind != "classification":
            return 0.0
        from peftsearch.tasks.metrics import score  # scikit-learn is loaded at the first use

        counts = Counter(self.train.labels)
        majority = min(counts, key=lambda label: (-counts[label], label))
        return score(self.metric, [majority] * len(self.validation), self.validation.labels, len(self.labels))

    def _digest(self) -> str:
        splits = [None if s is None else [s.rows(), s.labels] for s in (self.train, self.validation, self.test)]
        content = json.dumps([self.kind, self.labels, splits], separators=(",", ":"))
        return hashlib.sha256(content.encode()).hexdigest()[:16]
