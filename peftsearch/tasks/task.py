"""Tasks: splits of labelled texts or images, with a metric and the origin of the data."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from peftsearch.errors import one_line
from peftsearch.tasks.kinds import Answers, Kind, flat, n_outputs
from peftsearch.tasks.reading.columns import Columns


@dataclass(frozen=True, kw_only=True, slots=True)
class Split:
    """The examples of one split, column by column; all columns have the same length."""

    texts: list[str]
    """The texts, the first texts of pairs, or the prompts for generation."""
    pairs: list[str] | None
    """The second texts of pairs, or the completions of prompts; None for a task on single texts."""
    labels: list[int] | list[float]
    """Class indices, or the targets of a regression; zeros for other kinds."""

    def __post_init__(self) -> None:
        """Check that all columns have the same length."""
        assert len(self.texts) == len(self.labels), "texts and labels differ in length"
        assert self.pairs is None or len(self.pairs) == len(self.texts), "texts and pairs differ in length"

    def __len__(self) -> int:
        """The number of examples."""
        return len(self.texts)

    def answers(self) -> Answers:
        """What a model has to say of every example: its class, target, tags or classes."""
        return self.labels

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
    """The images of one split; `texts` are their names in messages."""

    images: list[bytes]
    """Undecoded files of the images: PNG, JPEG, ..."""

    def rows(self) -> list[tuple[str, str | None]]:
        """The SHA-256 of every image, so that equal images are equal rows, regardless of their names."""
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
class TokenSplit(Split):
    """The tokens of one split of examples that are tokenised already; `texts` are their places in messages."""

    input_ids: list[list[int]]
    """Token ids of each example, special tokens included, not padded."""
    token_type_ids: list[list[int]] | None
    """The segment of each token; None without segments."""

    def rows(self) -> list[tuple[str, str | None]]:
        """The tokens of every example, so that equal examples are equal rows."""
        return [(" ".join(map(str, ids)), None) for ids in self.input_ids]

    def take(self, indices: list[int]) -> TokenSplit:
        """The examples at `indices`, in that order."""
        segments = self.token_type_ids
        return TokenSplit(
            texts=[self.texts[i] for i in indices],
            pairs=None,
            labels=[self.labels[i] for i in indices],
            input_ids=[self.input_ids[i] for i in indices],
            token_type_ids=None if segments is None else [segments[i] for i in indices],
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class TagSplit(Split):
    """The words of one split with a tag for each; `texts` are the words joined by spaces."""

    words: list[list[str]]
    """The words of each example."""
    tags: list[list[int]]
    """Index of the tag of each word."""

    @classmethod
    def of(cls, words: list[list[str]], tags: list[list[int]]) -> TagSplit:
        """Make a split of words and as many tags."""
        texts = [" ".join(row) for row in words]
        return cls(texts=texts, pairs=None, labels=[0] * len(words), words=words, tags=tags)

    def answers(self) -> Answers:
        """The tags of the words of every example."""
        return self.tags

    def take(self, indices: list[int]) -> TagSplit:
        """The examples at `indices`, in that order."""
        return TagSplit.of([self.words[i] for i in indices], [self.tags[i] for i in indices])


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelsSplit(Split):
    """Texts or pairs with any number of classes each."""

    sets: list[list[int]]
    """For each example, a number for every class of the task: 1 if the example has it, else 0."""

    def answers(self) -> Answers:
        """A 1 or 0 for every class, of every example."""
        return self.sets

    def take(self, indices: list[int]) -> LabelsSplit:
        """The examples at `indices`, in that order."""
        return LabelsSplit(
            texts=[self.texts[i] for i in indices],
            pairs=None if self.pairs is None else [self.pairs[i] for i in indices],
            labels=[0] * len(indices),
            sets=[self.sets[i] for i in indices],
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class AnswerSplit(Split):
    """Questions with contexts, in which their answers stand; `texts` are the questions and `pairs` the contexts."""

    contexts: list[str]
    """The context of each question."""
    spans: list[list[int]]
    """For each question the first character of its first answer and the one behind its last; empty without one."""
    references: list[list[str]]
    """The right answers of each question; none where the context has none."""

    @classmethod
    def of(
        cls, questions: list[str], contexts: list[str], spans: list[list[int]], references: list[list[str]]
    ) -> AnswerSplit:
        """Make a split of questions."""
        return cls(
            texts=questions,
            pairs=contexts,
            labels=[0] * len(questions),
            contexts=contexts,
            spans=spans,
            references=references,
        )

    @classmethod
    def asked(cls, questions: list[str], contexts: list[str]) -> AnswerSplit:
        """Make a split of questions whose answers are not known."""
        return cls.of(questions, contexts, [[] for _ in questions], [[] for _ in questions])

    def answers(self) -> Answers:
        """Where the answer of every example stands."""
        return self.spans

    def take(self, indices: list[int]) -> AnswerSplit:
        """The examples at `indices`, in that order."""
        return AnswerSplit.of(
            [self.texts[i] for i in indices],
            [self.contexts[i] for i in indices],
            [self.spans[i] for i in indices],
            [self.references[i] for i in indices],
        )


Message = dict[str, str]
"""One turn of a chat: `role` (system, user or assistant) and `content`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ChatSplit(Split):
    """The chats of one split; `texts` are what comes before the last answers, as JSON, and `pairs` those answers."""

    chats: list[list[Message]]
    """The turns of each chat, the last of which is the assistant's."""

    @classmethod
    def of(cls, chats: list[list[Message]]) -> ChatSplit:
        """Make a split of chats that end with an answer."""
        return cls(
            texts=[json.dumps(chat[:-1], ensure_ascii=False) for chat in chats],
            pairs=[chat[-1]["content"] for chat in chats],
            labels=[0] * len(chats),
            chats=chats,
        )

    def take(self, indices: list[int]) -> ChatSplit:
        """The chats at `indices`, in that order."""
        return ChatSplit.of([self.chats[i] for i in indices])


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """A supervised task on texts or images."""

    name: str
    """A short name for tables and folders."""
    kind: Kind
    """Kind of the task."""
    labels: tuple[str, ...]
    """Names of the classes or tags, by index; empty for a regression and a generation."""
    train: Split
    """Examples that trials train on."""
    validation: Split
    """Examples that trials are scored on."""
    test: Split | None
    """Examples that the winner is scored on once, at the end; None without a test split."""
    metric: str
    """A name of the table of metrics."""
    source: str
    """Origin of the data, in words that `best.yaml` stores."""
    columns: Columns | None = None
    """Columns of the tables that the task was read from; None for a generated task."""
    notes: tuple[str, ...] = ()
    """Notes on guesses and on the data, one sentence each."""
    template: str = ""
    """Of a generation: the text around prompts and completions, or `chat` for the model's own chat template."""
    fingerprint: str = field(default="")
    """First 16 hex digits of a SHA-256 over the content; computed if not given."""

    def __post_init__(self) -> None:
        """Compute the fingerprint if it is not given."""
        if not self.fingerprint:
            object.__setattr__(self, "fingerprint", self._digest())

    @property
    def num_labels(self) -> int:
        """Width of the head: the number of classes or tags, 1 for regression, 2 for answers, 0 for generation."""
        return n_outputs(self.kind, len(self.labels))

    @property
    def has_images(self) -> bool:
        """Whether the examples are images."""
        return isinstance(self.train, ImageSplit)

    @property
    def majority_score(self) -> float:
        """Validation score of always answering the majority class of train; 0.0 for a kind without classes.

        The baseline of a generation task is the frozen model's own score (`LocalEngine.frozen`).
        """
        return self.majority_on(self.validation)

    def majority_on(self, split: Split) -> float:
        """Score of always answering the majority class of train on a split; 0.0 for a kind without classes.

        Of tags it is the most frequent one for every word; of several classes each that most examples have; of
        questions that there is no answer.
        """
        if not self.labels and not isinstance(split, AnswerSplit):
            return 0.0
        from peftsearch.tasks.metrics import score  # scikit-learn is loaded at the first use
        from peftsearch.tasks.own_metric import call_own, is_own

        if isinstance(split, AnswerSplit):
            nothing = [""] * len(split)
            if is_own(self.metric):
                return call_own(self.metric, nothing, split.references)
            return score(self.metric, nothing, split.references)
        own, truth = self.train.answers(), split.answers()
        guesses: list[Any]
        if self.kind == "multi_label":
            guesses = [[int(2 * sum(column) > len(own)) for column in zip(*own, strict=True)]] * len(split)
        else:
            majority = _most_frequent(own)
            if is_own(self.metric):
                truth = flat(truth)
            guesses = [[majority] * len(row) if isinstance(row, list) else majority for row in truth]
        return score(self.metric, guesses, truth, len(self.labels), names=self.labels)

    def _digest(self) -> str:
        splits = [None if s is None else [s.rows(), s.answers()] for s in (self.train, self.validation, self.test)]
        content = json.dumps([self.kind, self.labels, splits], separators=(",", ":"))
        return hashlib.sha256(content.encode()).hexdigest()[:16]


def _most_frequent(answers: Answers) -> Any:
    counts = Counter(flat(answers))
    return min(counts, key=lambda label: (-counts[label], label))


def class_counts(task: Task, most: int = 6) -> str:
    """The classes of a task with their numbers of training examples (of tags, of words), the most frequent first."""
    if not task.labels:
        return ""
    own = task.train.answers()
    if task.kind == "multi_label":
        own = [i for row in own for i, has in enumerate(row) if has]  # type: ignore[arg-type]  # of this kind
    counts = Counter(flat(own)).most_common()
    told = ", ".join(f"{one_line(task.labels[int(label)], 30)} {n:,}" for label, n in counts[:most])
    left = len(task.labels) - min(most, len(counts))
    return told + (f" and {left} more" if left else "")
