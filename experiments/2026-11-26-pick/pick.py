"""Whether a pick by the loss is better than one by the metric: picked on one part of the examples, scored on the other.

Reads the losses and hits of every validation example of ../2026-11-26-hybrid-benchmark, two seeds of each design.
"""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

import numpy as np

BENCHMARK = Path(__file__).parent.parent / "2026-11-26-hybrid-benchmark"
REPEATS = 2000


def read(task: str) -> tuple[np.ndarray, np.ndarray]:
    """Losses and hits `(designs, 2 seeds, examples)` of whole trainings."""
    stored = np.load(BENCHMARK / f"examples-{task}.npz")
    runs: dict[str, dict[int, dict[str, np.ndarray]]] = defaultdict(dict)
    for key in stored.files:
        name, look = key.rsplit("/", 1)
        if look in ("100", "hits") and (found := re.fullmatch(rf"{task}-(.*)-(\d)", name)):
            runs[found[1]].setdefault(int(found[2]), {})[look] = stored[key].astype(float)
    whole = [[seed for seed in seeds.values() if len(seed) == 2][:2] for seeds in runs.values()]
    whole = [seeds for seeds in whole if len(seeds) == 2]
    losses, hits = (np.array([[seed[look] for seed in seeds] for seeds in whole]) for look in ("100", "hits"))
    return losses, hits


def pick(losses: np.ndarray, hits: np.ndarray) -> dict[str, int]:
    """The finalist that each rule picks, of losses and hits `(finalists, seeds, examples)`."""
    metric, loss = hits.mean((1, 2)), losses.mean((1, 2))
    lead = hits[np.argmax(metric)].mean(0) - hits.mean(1)  # (finalists, examples)
    error = lead.std(1, ddof=1) / lead.shape[1] ** 0.5
    close = np.flatnonzero(lead.mean(1) <= error)
    return {
        "metric": int(np.lexsort((loss, -metric))[0]),
        "loss": int(np.argmin(loss)),
        "loss, where the metric is within a standard error": int(close[np.argmin(loss[close])]),
    }


def main() -> None:
    """Print one line for each task, number of examples and rule."""
    rng = np.random.default_rng(0)
    for task in ("trec", "sst5"):
        losses, hits = read(task)
        n = losses.shape[2]
        for n_seen in (n // 4, n // 2):
            scores: dict[str, list[float]] = defaultdict(list)
            for _ in range(REPEATS):
                order = rng.permutation(n)
                seen, left = order[:n_seen], order[n_seen:]
                some = rng.choice(len(losses), 8, replace=False)
                finalists = some[np.argsort(losses[some, 0][:, seen].mean(1))[:3]]
                for rule, k in pick(losses[finalists][:, :, seen], hits[finalists][:, :, seen]).items():
                    scores[rule].append(float(hits[finalists[k]][:, left].mean()))
                scores["the best of the three"].append(float(hits[finalists][:, :, left].mean((1, 2)).max()))
            for rule, found in scores.items():
                gain = 100 * (np.array(found) - np.array(scores["metric"]))
                print(f"{task}, {n_seen} examples, {rule}: {np.mean(found):.4f}, {gain.mean():+.3f} points")


if __name__ == "__main__":
    main()
