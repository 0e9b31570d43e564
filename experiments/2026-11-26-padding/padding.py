"""Share of the tokens of training batches that are padding: the most that packing examples into one row could save.

padding.py DATA [MODEL]: over five seeds, batches of 16 as the package makes them (examples of like length), beside
batches in random order. `DATA` holds folders of tasks; `MODEL` is a language model for E2E.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from random import Random

from peftsearch.backbone.load import load_backbone
from peftsearch.options import TaskOptions
from peftsearch.tasks import resolve_task
from peftsearch.tasks.encoding.batches import epoch
from peftsearch.tasks.encoding.encode import encode

SEEDS, BATCH = range(5), 16


def padding(lengths: list[int], cut: list[list[int]]) -> float:
    """Share of padding in the batches of an epoch."""
    whole = sum(len(rows) * max(lengths[i] for i in rows) for rows in cut)
    return 1 - sum(lengths) / whole


def main(data: Path, model: str | None) -> None:
    """A line a task."""
    table = csv.writer(sys.stdout)
    table.writerow(["task", "examples", "mean_tokens", "longest", "padding_like_length", "padding_random"])
    for name in ("sst2", "sst5", "cr", "trec", "e2e"):
        kind = "generation" if name == "e2e" else None
        if kind and model is None:
            continue
        folder = data / name
        task = resolve_task(
            TaskOptions(train=folder / "train.jsonl", validation=folder / "validation.jsonl", kind=kind)
        )
        loaded = load_backbone(model if kind else None, num_labels=max(1, task.num_labels), problem_type=kind)
        train = encode(task, loaded.tokenizer, 256).train
        lengths = [train.length(i) for i in range(len(train))]
        own = random = 0.0
        for seed in SEEDS:
            rng = Random(seed)
            own += padding(lengths, epoch(train, BATCH, rng)) / len(SEEDS)
            order = rng.sample(range(len(train)), len(train))
            cut = [order[i : i + BATCH] for i in range(0, len(order), BATCH)]
            random += padding(lengths, cut) / len(SEEDS)
        mean = sum(lengths) / len(lengths)
        table.writerow([name, len(train), f"{mean:.1f}", max(lengths), f"{own:.4f}", f"{random:.4f}"])


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else None)
