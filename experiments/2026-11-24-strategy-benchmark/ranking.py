"""How well cheap figures rank the designs by their score after 60 steps: 24 steps, gradients, another seed.

Usage: python ranking.py [--tables FOLDER]      (writes ranking.csv and noise.csv beside this file)

Spearman's correlation, and the share of the ten best designs that are among the ten best by the cheap figure (ties
broken at random, mean over 200 draws), with 95% percentile intervals of 1,000 bootstrap samples of the designs. Points
that train the same architecture count once.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from recorded import HERE, TASKS, Measured, Table, load_measured, load_table
from scipy.stats import spearmanr

from peftsearch.samplers.knapsack import worth

SEEN = 68
"""The form of the sensitivity score was chosen on so many designs at most, the first of the drawn order."""
_TOP = 10
_SAMPLES = 1000


def top_recall(cheap: np.ndarray, full: np.ndarray, rng: np.random.Generator, draws: int = 1) -> float:
    """Share of the ten best by `full` among the ten best by `cheap`, ties of both broken at random."""
    shares = []
    for _ in range(draws):
        tie = rng.permutation(len(full))
        best = [set(np.lexsort((tie, -values))[:_TOP]) for values in (cheap, full)]
        shares.append(len(best[0] & best[1]) / _TOP)
    return float(np.mean(shares))


def row(task: str, what: str, part: str, cheap: pd.Series, full: pd.Series) -> dict[str, object]:
    """Both figures with their intervals, over the designs that have both scores."""
    both = pd.concat([cheap, full], axis=1).dropna().to_numpy()
    found = {"task": task, "cheap": what, "designs": part, "n": len(both)}
    if len(both) < 2 * _TOP:
        return found
    rng = np.random.default_rng(0)
    samples = [both[rng.integers(len(both), size=len(both))] for _ in range(_SAMPLES)]
    correlations = [spearmanr(*s.T).statistic for s in samples]
    recalls = [top_recall(*s.T, rng) for s in samples]
    found["spearman"] = spearmanr(*both.T).statistic
    found["spearman_low"], found["spearman_high"] = np.nanpercentile(correlations, [2.5, 97.5])
    found["recall"] = top_recall(*both.T, rng, draws=200)
    found["recall_low"], found["recall_high"] = np.percentile(recalls, [2.5, 97.5])
    found["recall_by_chance"] = _TOP / len(both)
    return found


def rows_of(table: Table, measured: Measured) -> list[dict[str, object]]:
    """All comparisons on one task."""
    architectures = measured.architectures
    once = pd.Series([architectures[p] for p in table.full.index], index=table.full.index).drop_duplicates().index
    full, low = table.full[once], table.low[once]
    again, low_again = table.full_again[once], table.low_again[once]
    gradients = pd.Series({p: worth(architectures[p], measured.scores[table.task]) for p in once})
    unseen = once[once.isin(table.full.index[SEEN:])]
    twice = again.dropna().index
    cheap = {"24 steps, same seed": low, "sensitivity": gradients}
    rows = [row(table.task, what, "all", values, full) for what, values in cheap.items()]
    rows.append(row(table.task, "sensitivity", f"without the first {SEEN}", gradients[unseen], full[unseen]))
    rows.append(row(table.task, "24 steps, same seed", f"without the first {SEEN}", low[unseen], full[unseen]))
    cheap |= {"24 steps, the other seed": low_again, "60 steps, the other seed": again}
    return rows + [row(table.task, what, "two seeds", values[twice], full[twice]) for what, values in cheap.items()]


def noise_of(table: Table) -> dict[str, object]:
    """The parts of the variance of a 60-step score, with bootstrap intervals of the reliability."""
    found: dict[str, object] = {
        "task": table.task, "designs": len(table.full), "failed": table.n_failed, "mean": table.full.mean(),
        "std": table.full.std(), "best": table.full.max(), "two_seeds": len(table.pairs),
    }  # fmt: skip
    if len(table.pairs) < 3:
        return found
    noise, pairs, rng = table.noise(), table.pairs.to_numpy(), np.random.default_rng(0)
    samples = [pairs[rng.integers(len(pairs), size=len(pairs))] for _ in range(_SAMPLES)]
    shares = [type(noise).of(*s.T).reliability for s in samples]
    low, high = np.percentile(shares, [2.5, 97.5])
    found |= {"seed_std": noise.seed_std, "design_std": noise.design_std, "seed_shift": np.diff(pairs.mean(axis=0))[0]}
    return found | {"reliability": noise.reliability, "reliability_low": low, "reliability_high": high}


def main() -> None:
    """Both tasks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", type=Path, default=HERE)
    tables = [load_table(parser.parse_args().tables / f"{task}.csv") for task in TASKS]
    measured = load_measured()
    ranking = pd.DataFrame([r for table in tables for r in rows_of(table, measured)]).round(3)
    noise = pd.DataFrame([noise_of(table) for table in tables]).round(4)
    ranking.to_csv(HERE / "ranking.csv", index=False)
    noise.to_csv(HERE / "noise.csv", index=False)
    print(ranking.to_string(index=False), noise.to_string(index=False), sep="\n\n")


if __name__ == "__main__":
    main()
