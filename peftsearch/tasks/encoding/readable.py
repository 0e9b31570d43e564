"""Whether a model can read the examples: images that are decoded, and what its tokenizer made of texts."""

from __future__ import annotations

from dataclasses import dataclass, replace

from peftsearch.errors import TaskError, one_line
from peftsearch.tasks.encoding.encoded import EncodedSplit, EncodedTexts
from peftsearch.tasks.encoding.images import undecodable
from peftsearch.tasks.encoding.pairs import EncodedPairs
from peftsearch.tasks.reading.faults import DROP, SHOWN, WAY_OUT
from peftsearch.tasks.task import ImageSplit, Split, Task

UNKNOWN_SHARE = 0.2
"""Share of unknown tokens in train above which the user is told."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EndToken:
    """The end token of a model whose head reads a text at it: all texts must have as many."""

    id: int
    text: str
    """How it looks in a text."""
    n: int
    """How many the tokenizer gives a text, or a pair."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reads:
    """What a model can read."""

    n_tokens: int
    """Number of its embeddings."""
    end: EndToken | None = None
    """Its end token, if the head reads a text there."""
    special: frozenset[int] = frozenset()
    """Tokens that say nothing of a text: special and unknown ones."""
    unknown: int | None = None
    """The token of unknown words."""


def unreadable(encoded: EncodedSplit, reads: Reads) -> dict[int, str]:
    """What is wrong with each example that the model cannot read."""
    if not isinstance(encoded, EncodedTexts):
        return {}
    faults: dict[int, str] = {}
    for i, ids in enumerate(encoded.input_ids):
        every = [*ids, *encoded.completions[i]] if isinstance(encoded, EncodedPairs) else ids
        if not every:
            faults[i] = "becomes no tokens"
        elif max(every) >= reads.n_tokens:
            faults[i] = f"becomes token {max(every)}, and the model has {reads.n_tokens:,} embeddings"
        elif reads.end is not None and ids.count(reads.end.id) != reads.end.n:
            faults[i] = f"has the end token {reads.end.text!r} in its middle, and the model's head reads a text there"
    return faults


def check_examples(encoded: EncodedSplit, split: Split, where: str, reads: Reads) -> None:
    """Check the examples of one split, for a model that is trained already.

    Raises:
        TaskError: The model cannot read some; counts them, and names the first.
    """
    faults = unreadable(encoded, reads)
    if faults:
        raise TaskError(f"{where}: {_told(faults, split)}; correct them or leave them out")


def sound_task(
    task: Task, encoded: dict[str, EncodedSplit], reads: Reads, bad_rows: str | None
) -> tuple[Task, tuple[str, ...]]:
    """The task without the examples that the model cannot read.

    Args:
        task: The task.
        encoded: Its splits, encoded.
        reads: What the model can read.
        bad_rows: `drop` leaves the examples out; else they are refused.

    Returns:
        The task, the same object where nothing is left out; and notes for the user.

    Raises:
        TaskError: There are such examples, and they are not to be left out; or the tokenizer tells no texts apart.
    """
    _check_vocabulary(encoded["train"], task.train, task.name, reads)
    sound, notes = _without(task, {name: unreadable(made, reads) for name, made in encoded.items()}, bad_rows)
    return sound, (*notes, *_unknown_share(encoded["train"], reads))


def sound_images(task: Task, bad_rows: str | None) -> tuple[Task, tuple[str, ...]]:
    """The task without the images that cannot be decoded; decodes every image.

    Args:
        task: The task.
        bad_rows: `drop` leaves the images out; else they are refused.

    Returns:
        The task, the same object where every image can be decoded; and notes for the user.

    Raises:
        TaskError: There are such images, and they are not to be left out.
    """
    faults: dict[str, dict[int, str]] = {}
    for name, split in (("train", task.train), ("validation", task.validation), ("test", task.test)):
        if isinstance(split, ImageSplit):
            faults[name] = undecodable(split)
    sound, notes = _without(task, faults, bad_rows)
    return sound, tuple(notes)


def _without(task: Task, faulty: dict[str, dict[int, str]], bad_rows: str | None) -> tuple[Task, list[str]]:
    """The task without the faulty examples of each split, and what was left out."""
    notes: list[str] = []
    kept: dict[str, Split] = {}
    for name, faults in faulty.items():
        split: Split = getattr(task, name)
        if not faults:
            continue
        told = f"{name}: {_told(faults, split)}"
        if bad_rows != DROP or len(faults) == len(split):
            drop = WAY_OUT if len(faults) < len(split) else ""
            raise TaskError(f"task {task.name!r}, {told}; correct them{drop}")
        notes.append(f"{told}: left out")
        kept[name] = split.take([i for i in range(len(split)) if i not in faults])
    if not kept:
        return task, notes
    own = {"train": task.train, "validation": task.validation} | kept
    return replace(task, train=own["train"], validation=own["validation"], test=kept.get("test", task.test)), notes


def _check_vocabulary(encoded: EncodedSplit, split: Split, name: str, reads: Reads) -> None:
    """Refuse a tokenizer that makes the same of all texts, as one does whose files are missing."""
    if not isinstance(encoded, EncodedTexts) or len(set(split.rows())) < 2:
        return
    seen: set[int] = set()
    for ids in encoded.input_ids:
        seen.update(set(ids) - reads.special)
        if len(seen) > 1:
            return
    first = one_line(split.texts[0], 60)
    raise TaskError(
        f"task {name!r}: the model's tokenizer tells no texts of train apart (such as {first!r}), as if it had no "
        "vocabulary; add its files to the model's folder"
    )


def _unknown_share(encoded: EncodedSplit, reads: Reads) -> tuple[str, ...]:
    if reads.unknown is None or not isinstance(encoded, EncodedTexts):
        return ()
    n = sum(len(ids) for ids in encoded.input_ids)
    share = sum(ids.count(reads.unknown) for ids in encoded.input_ids) / max(1, n)
    if share < UNKNOWN_SHARE:
        return ()
    return (f"{share:.0%} of the tokens of train are unknown to the model's tokenizer: is it of this language?",)


def _told(faults: dict[int, str], split: Split) -> str:
    """How many examples are faulty, and the first of them."""
    first, texts = list(faults.items())[:SHOWN], split.texts
    width = 300 if isinstance(split, ImageSplit) else 60  # the name of a file is of no use in part
    shown = "; ".join(f"example {i + 1} ({one_line(texts[i], width)!r}) {fault}" for i, fault in first)
    more = "; ..." if len(faults) > len(first) else ""
    return f"{len(faults):,} of {len(texts):,} examples cannot be read: {shown}{more}"
