"""Reliability of every rung and signal, survivors of promotions, and the portfolio; prints tables."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

HERE = Path(__file__).parent
SIGNALS = (
    "loss_10", "loss_mean_10", "acc_10", "acc_mean_10",
    "loss_30", "loss_mean_30", "acc_30", "acc_mean_30",
    "loss_100", "acc_100",
)  # fmt: skip


def read() -> pd.DataFrame:
    """All recorded designs, one row a training."""
    paths = sorted(HERE.glob("designs-*.csv"))
    return pd.concat(map(pd.read_csv, paths), ignore_index=True)


def _pairs(own: pd.DataFrame, signal: str, target: str) -> Iterator[tuple[pd.Series, pd.Series]]:
    """A signal with each seed and the mean target of the other seeds, of the designs that have both; low is good."""
    wide = {seed: rows.set_index("name") for seed, rows in own.groupby("seed")}
    for seed in wide:
        others = [wide[s][target] for s in wide if s != seed]
        if not others:
            continue
        rest = pd.concat(others).groupby(level=0).mean()
        both = wide[seed].index.intersection(rest.index)
        if len(both) >= 10:
            signs = [-1 if name.startswith("acc") else 1 for name in (signal, target)]
            yield signs[0] * wide[seed].loc[both, signal], signs[1] * rest[both]


def reliability(rows: pd.DataFrame) -> pd.DataFrame:
    """Spearman of a signal with one seed against the mean final loss and accuracy of the other seeds.

    Over the designs that have both seeds, averaged over the seed that signals; signs are turned so that 1 is best.
    """
    found = []
    for task, own in rows.groupby("task"):
        for signal in SIGNALS:
            line: dict[str, object] = {"task": task, "signal": signal}
            for target in ("loss_100", "acc_100"):
                pairs = list(_pairs(own, signal, target))
                values = [here.corr(rest, method="spearman") for here, rest in pairs]
                line["designs"] = "/".join(str(len(here)) for here, _ in pairs)
                line[f"with {target}"] = np.mean(values) if values else np.nan
            found.append(line)
    return pd.DataFrame(found)


def survivors(rows: pd.DataFrame, keep: int = 3, top: int = 5) -> pd.DataFrame:
    """Share of the final top five (mean loss of the other seeds) among the best third by a signal of one seed."""
    found = []
    for task, own in rows.groupby("task"):
        for signal in SIGNALS:
            shares = []
            for here, rest in _pairs(own, signal, "loss_100"):
                kept = set(here.nsmallest(-(-len(here) // keep)).index)
                shares.append(len(kept & set(rest.nsmallest(top).index)) / top)
            found.append({"task": task, "signal": signal, "share": np.mean(shares) if shares else np.nan})
    return pd.DataFrame(found)


def pairing(rows: pd.DataFrame) -> pd.DataFrame:
    """Variance of the final loss: between designs, of the seed alone (common to all), and what is left."""
    found = []
    for task, own in rows.groupby("task"):
        wide = own.pivot_table(index="name", columns="seed", values="loss_100").dropna(axis=1, thresh=10).dropna()
        if wide.shape[1] < 2:
            continue
        residual = wide.sub(wide.mean(axis=1), axis=0).sub(wide.mean(axis=0), axis=1) + wide.values.mean()
        n, k = wide.shape
        noise = float((residual**2).values.sum() / ((n - 1) * (k - 1)))
        found.append(
            {
                "task": task,
                "designs": n,
                "seeds": k,
                "sd between designs": max(0.0, wide.mean(axis=1).var() - noise / k) ** 0.5,
                "sd common to a seed": max(0.0, wide.mean(axis=0).var() - noise / n) ** 0.5,
                "sd left": noise**0.5,
            }
        )
    return pd.DataFrame(found)


def portfolio(rows: pd.DataFrame, size: int) -> list[str]:
    """Designs whose best, by mean final loss, has the least regret summed over the tasks, added one by one."""
    means = rows.groupby(["task", "name"])["loss_100"].mean().unstack(0).dropna()
    regret = means - means.min()
    scale = means.std()
    chosen: list[str] = []
    while len(chosen) < size:
        left = [n for n in regret.index if n not in chosen and not n.startswith(("drawn", "s4")) and "half" not in n]
        cost = {
            n: float((regret.loc[[*chosen, n]].min() / scale).sum() + 0.05 * (regret.loc[n] / scale).sum())
            for n in left
        }
        chosen.append(min(cost, key=cost.get))
    return chosen


if __name__ == "__main__":
    data = read()
    if len(sys.argv) > 1:
        data = data[data["seed"].isin([int(s) for s in sys.argv[1].split(",")])]
    with pd.option_context("display.width", 160, "display.max_rows", 200, "display.precision", 3):
        print(reliability(data).to_string(index=False), "\n")
        print(survivors(data).to_string(index=False), "\n")
        print(pairing(data).to_string(index=False), "\n")
        means = data.groupby(["task", "name"])["loss_100"].agg(["mean", "std", "count"]).reset_index()
        for task, own in means.groupby("task"):
            print(task, own.nsmallest(14, "mean").to_string(index=False), sep="\n")
        print(portfolio(data, 10))
