"""Generate the three balanced splits of a task from a function that makes examples.

Each draft names its lexical core, such as "plot|dull"; a checksum of the core decides its split. Therefore no core, and
no text, of validation or test occurs in train, on any machine and for any sizes of the splits.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from peftsearch.errors import TaskError
from peftsearch.tasks.task import Split

RARE_SHARE = 0.25
"""Share of validation and test examples that use words which never occur in train."""

N_BUCKETS = 8
BUCKETS = {"train": range(2, N_BUCKETS), "validation": range(0, 1), "test": range(1, 2)}
TRIES_PER_EXAMPLE = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class Draft:
    """One generated example, before it has a split."""

    text: str
    """The text, or the first text of a pair."""
    pair: str | None = None
    """The second text of a pair."""
    core: str
    """Words that identify the example; no core occurs in two splits."""


Maker = Callable[[Random, int, bool], Draft]
"""Function that makes an example for a label, from rare words if the last argument is true."""


def make_split(maker: Maker, name: str, split: str, n_examples: int, seed: int) -> Split:
    """Generate one split: balanced labels, no text twice, in random order.

    Raises:
        TaskError: The vocabulary does not yield enough different examples.
    """
    rng = Random(f"{name}:{split}:{seed}")
    seen: set[tuple[str, str | None]] = set()
    examples: list[tuple[Draft, int]] = []
    for _ in range(TRIES_PER_EXAMPLE * n_examples):
        if len(examples) == n_examples:
            break
        label = len(examples) % 2
        draft = maker(rng, label, split != "train" and rng.random() < RARE_SHARE)
        if zlib.crc32(draft.core.encode()) % N_BUCKETS in BUCKETS[split] and (draft.text, draft.pair) not in seen:
            seen.add((draft.text, draft.pair))
            examples.append((draft, label))
    if len(examples) < n_examples:
        raise TaskError(
            f"task {name!r}: {n_examples} examples were requested for {split}, but the grammar yields about "
            f"{len(examples)}; request fewer"
        )
    rng.shuffle(examples)
    pairs = [draft.pair for draft, _ in examples if draft.pair is not None]
    return Split(
        texts=[draft.text for draft, _ in examples], pairs=pairs or None, labels=[label for _, label in examples]
    )
