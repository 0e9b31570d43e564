"""What the replays say: results.csv, results.md, comparisons.csv, curves.csv and score.png beside this file.

Usage: python summary.py --recorded FILE ... [--simulated FILE ...] [--tables FOLDER]      (what replay.py wrote)

A search's result is the best design that it has found by then, by the score that it saw. In the recorded world that
score counts (and, where the design was trained with seed 1 too, that score beside it), in the simulated world the
design's level.
"""

from __future__ import annotations

import argparse
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from recorded import FULL, HERE, TASKS, Table, load_measured, load_table
from replay import BUDGETS, DECIDED, OWN_RUN, simulated_levels
from scipy.stats import t as student

LEVEL = 0.05


class Replays:
    """The rows of one replay and what its designs are worth.

    Args:
        rows: As `replay.py` writes them.
        tables: By task.
        simulated: Whether the worlds were.
    """

    def __init__(self, rows: pd.DataFrame, tables: dict[str, Table], simulated: bool) -> None:
        self.rows, self.tables = rows, tables
        self.world = "simulated" if simulated else "recorded"
        self.worth = {task: simulated_levels(t) if simulated else t.full for task, t in tables.items()}
        architectures = load_measured().architectures
        self.thresholds = {}
        for task, worth in self.worth.items():
            kinds = pd.Series([architectures[p] for p in worth.index], index=worth.index)
            ordered = worth[kinds.drop_duplicates().index].sort_values(ascending=False)
            self.thresholds[task] = [ordered.iloc[max(1, round(len(ordered) * share)) - 1] for share in (0.01, 0.05)]

    def runs(self, task: str, trials: int, steps: int) -> pd.DataFrame:
        """The rows of the runs that count at a budget; of gp the many short runs as far as they go."""
        rows = self.rows[self.rows["task"] == task]
        own = rows["strategy"].isin((*OWN_RUN, DECIDED))
        wanted = np.where(own, trials, BUDGETS[-1])
        wanted[rows["strategy"] == "gp"] = BUDGETS[steps > FULL * BUDGETS[0]]
        return rows[rows["trials"] == wanted]

    def results(self, task: str, trials: int, steps: int | None = None) -> pd.DataFrame:
        """What every repetition has found by then: strategy, repetition, point, and the design's worth."""
        steps = FULL * trials if steps is None else steps
        runs = self.runs(task, trials, steps)
        last = runs[runs["steps"] <= steps].groupby(["strategy", "repetition"], as_index=False).last()
        return last.assign(worth=self.worth[task][last["point"]].to_numpy())

    def table(self) -> pd.DataFrame:
        """One row for a task, a budget and a strategy."""
        rows = []
        for task, trials in ((task, trials) for task in TASKS for trials in BUDGETS):
            again = self.tables[task].full_again
            for strategy, own in self.results(task, trials).groupby("strategy"):
                worth, second = own["worth"], again.reindex(own["point"]).dropna()
                low, middle, high = worth.quantile([0.25, 0.5, 0.75])
                rows.append({
                    "world": self.world, "task": task, "steps": FULL * trials, "strategy": strategy, "n": len(own),
                    "mean": worth.mean(), "std": worth.std(), "q25": low, "median": middle, "q75": high,
                    "regret": self.worth[task].max() - worth.mean(),
                    "top_1": np.mean(worth >= self.thresholds[task][0]),
                    "top_5": np.mean(worth >= self.thresholds[task][1]),
                    "seed1_mean": second.mean(), "seed1_n": len(second), "seed1_designs": second.index.nunique(),
                })  # fmt: skip
        return pd.DataFrame(rows)

    def comparisons(self, trials: int) -> pd.DataFrame:
        """Every pair of strategies, by the difference of the same repetition, in units of the designs' spread.

        The mean of both tasks is tested; Holm's correction is for all pairs of one budget and world.
        """
        found = {}
        for task in TASKS:
            results = self.results(task, trials)
            results["worth"] /= self.worth[task].std()
            found[task] = results.pivot(index="repetition", columns="strategy", values="worth")
        rows = []
        for a, b in combinations(found[TASKS[0]].columns, 2):
            both = pd.concat([found[task][a] - found[task][b] for task in TASKS], axis=1, keys=TASKS).dropna()
            mean, n = both.mean(axis=1), len(both)
            error = mean.std() / n**0.5
            p = float(2 * student.sf(abs(mean.mean()) / error, n - 1)) if error else 1.0
            half = error * student.ppf(1 - LEVEL / 2, n - 1)
            rows.append({
                "world": self.world, "steps": FULL * trials, "a": a, "b": b, "n": n, "difference": mean.mean(),
                "low": mean.mean() - half, "high": mean.mean() + half, "p": p, **both.mean().to_dict(),
            })  # fmt: skip
        return holm(pd.DataFrame(rows))

    def curves(self) -> pd.DataFrame:
        """Mean and quartiles after every whole trial's worth of steps, of the longest runs."""
        parts = []
        for task, steps in ((task, FULL * k) for task in TASKS for k in range(1, BUDGETS[-1] + 1)):
            found = self.results(task, BUDGETS[-1], steps).groupby("strategy")["worth"]
            part = found.describe()[["count", "mean", "std", "25%", "50%", "75%"]].reset_index()
            parts.append(part.assign(world=self.world, task=task, steps=steps))
        return pd.concat(parts)


def whole(paths: list[Path]) -> pd.DataFrame:
    """The rows of several files, without doubles and without a line that is being written."""
    rows = pd.concat([pd.read_csv(path) for path in paths])
    return rows.dropna().drop_duplicates().astype({"trials": int, "repetition": int, "steps": int, "point": int})


def holm(rows: pd.DataFrame) -> pd.DataFrame:
    """Add Holm's step-down corrected p-values (1979)."""
    order = rows["p"].sort_values().index
    scaled = rows["p"][order] * np.arange(len(order), 0, -1)
    return rows.assign(p_holm=scaled.cummax().clip(upper=1.0))


def random_expectation(table: Table, trials: int) -> float:
    """Exact mean of the best of so many different designs drawn at random: the known answer for random search."""
    ordered = np.sort(table.full.dropna().to_numpy())[::-1]
    left, expected = 1.0, 0.0
    for i, score in enumerate(ordered):
        chance = min(1.0, trials / (len(ordered) - i))  # that the next best is drawn, when no better one is
        expected += left * chance * score
        left *= 1 - chance
    return expected


def markdown(results: pd.DataFrame, pairs: pd.DataFrame) -> str:
    """The tables of the README: a row a strategy, the better ones first."""
    text = ""
    for (world, steps), part in results.groupby(["world", "steps"], sort=False):
        text += f"### {world}, {steps:,} steps\n\n| strategy | n |"
        text += "".join(f" {task}: mean ± std | quartiles | top 1% / 5% |" for task in TASKS)
        text += " against random, no pruner | p (Holm) |\n|---|---|" + "---|---|---|" * len(TASKS) + "---|---|\n"
        own = against(pairs[(pairs["world"] == world) & (pairs["steps"] == steps)], "random, no pruner").set_index("a")
        means = part.groupby("strategy")["mean"].mean().sort_values(ascending=False)
        for name in means.index:
            rows = part[part["strategy"] == name].set_index("task").loc[list(TASKS)]
            text += f"| {name} | {rows['n'].min()} |"
            for row in rows.itertuples():
                text += f" {row.mean:.4f} ± {row.std:.4f} | {row.q25:.3f} {row.median:.3f} {row.q75:.3f} |"
                text += f" {row.top_1:.0%} / {row.top_5:.0%} |"
            if name in own.index:
                pair = own.loc[name]
                text += (
                    f" {pair['difference']:+.2f} ({pair['low']:+.2f} to {pair['high']:+.2f}) | {pair['p_holm']:.3f} |"
                )
            else:
                text += " | |"
            text += "\n"
        text += "\n"
    return text


def main() -> None:
    """All files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recorded", type=Path, nargs="+", required=True)
    parser.add_argument("--simulated", type=Path, nargs="*", default=[])
    parser.add_argument("--tables", type=Path, default=HERE)
    arguments = parser.parse_args()
    tables = {task: load_table(arguments.tables / f"{task}.csv") for task in TASKS}
    files = {"recorded": arguments.recorded, "simulated": arguments.simulated}
    worlds = [Replays(whole(paths), tables, simulated=world == "simulated") for world, paths in files.items() if paths]
    results = pd.concat([w.table() for w in worlds]).round(4)
    pairs = pd.concat([w.comparisons(trials) for w in worlds for trials in BUDGETS]).round(5)
    curves = pd.concat([w.curves() for w in worlds]).round(5)
    for name, frame in (("results", results), ("comparisons", pairs), ("curves", curves)):
        frame.to_csv(HERE / f"{name}.csv", index=False)
    from figure import draw

    recorded = [frame[frame["world"] == "recorded"] for frame in (curves, results)]
    draw(*recorded, tables, HERE / "score.png")
    for task, trials in ((task, trials) for task in TASKS for trials in BUDGETS):
        print(f"{task}: best of {trials} random designs, exact: {random_expectation(tables[task], trials):.4f}")
    (HERE / "results.md").write_text(markdown(results, pairs))
    print((HERE / "results.md").read_text())
    for reference in ("random, no pruner", "s4"):
        print(f"\nagainst {reference}\n")
        print(against(pairs, reference).to_string(index=False))


def against(pairs: pd.DataFrame, reference: str) -> pd.DataFrame:
    """The pairs with one strategy, as differences of the others from it."""
    first, second = pairs[pairs["b"] == reference], pairs[pairs["a"] == reference].copy()
    second["a"] = second["b"]
    second[["difference", *TASKS]] *= -1
    second["low"], second["high"] = -second["high"], -second["low"]
    both = pd.concat([first, second]).drop(columns=["b", "p"])
    return both.sort_values(["world", "steps", "difference"], ascending=[True, True, False]).round(3)


if __name__ == "__main__":
    main()
