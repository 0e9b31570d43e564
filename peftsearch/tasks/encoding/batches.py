"""Cut an encoded split into batches.

A batch holds examples of similar length, padded on the right to the longest, which saves most of the work on short
texts. Evaluation batches carry the indices of their examples.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from random import Random

import torch

from peftsearch.tasks.encoding.encoded import EncodedSplit

MEGA_BATCHES = 20
"""Number of batches whose examples are sorted by length together."""


def batches(
    split: EncodedSplit, batch_size: int, seed: int, steps: int, first: int = 0
) -> Iterator[dict[str, torch.Tensor]]:
    """Training batches, epoch after epoch until `steps`, with every example once per epoch.

    An epoch is shuffled, cut into runs of `MEGA_BATCHES` batches, sorted by length inside each run, and cut into
    batches, which are shuffled. The last batch of an epoch may be smaller.

    Args:
        split: A non-empty split.
        batch_size: Examples per batch.
        seed: The same seed gives the same batches.
        steps: Number of batches.
        first: Number of batches at the beginning to leave out, which costs nothing.
    """
    for indices in islice(index_batches(split, batch_size, seed, steps), first, None):
        yield split.collate(indices)


def index_batches(split: EncodedSplit, batch_size: int, seed: int, steps: int) -> Iterator[list[int]]:
    """The indices of the examples of each batch of `batches`, which can be skipped without cost."""
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
