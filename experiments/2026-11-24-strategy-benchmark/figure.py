"""The figure: mean score of the best design found against training steps spent, a panel a task."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from recorded import TASKS, Table

mpl.use("Agg")
import matplotlib.pyplot as plt

STYLES = {
    "s4": ("#000000", "-", 2.6),
    "gp": ("#D55E00", "-", 1.8),
    "tpe, no pruner": ("#0072B2", "-", 1.8),
    "tpe": ("#0072B2", "--", 1.4),
    "hyperband": ("#0072B2", ":", 1.8),
    "sensitivity": ("#CC79A7", "-", 1.8),
    "evolution": ("#009E73", "-", 1.8),
    "nsga2": ("#56B4E9", "-.", 1.6),
    "random, no pruner": ("#777777", "-", 1.8),
    "random": ("#777777", "--", 1.4),
    "asha": ("#E69F00", "--", 1.6),
    "halving by hand": ("#E69F00", ":", 1.8),
}
"""Colour (of the Okabe-Ito palette), line and width; what prunes is broken."""


def draw(curves: pd.DataFrame, results: pd.DataFrame, tables: dict[str, Table], path: Path) -> None:
    """Save the figure.

    Args:
        curves: `curves.csv`, one world.
        results: `results.csv`, that world; of what plans with the number of trials both budgets are marked.
        tables: By task, for the best score of the table.
        path: Of the PNG.
    """
    figure, axes = plt.subplots(1, len(TASKS), figsize=(13, 6.2), layout="constrained")
    for axis, task in zip(axes, TASKS, strict=True):
        own = curves[curves["task"] == task]
        reference = own[own["strategy"] == "random, no pruner"]
        axis.fill_between(reference["steps"], reference["25%"], reference["75%"], color="#777777", alpha=0.15, lw=0)
        for name, (colour, line, width) in STYLES.items():
            one = own[own["strategy"] == name]
            ends = results[(results["task"] == task) & (results["strategy"] == name)]
            if name == "halving by hand":  # no curve: its scores all come at the end
                label = f"{name} ({int(ends['n'].max())})"
                axis.plot(ends["steps"], ends["mean"], "D", color=colour, ms=7, label=label, clip_on=False, zorder=5)
            elif name == "s4":
                axis.plot(ends["steps"], ends["mean"], "o", color=colour, ms=7, clip_on=False, zorder=5)
            if len(one) and name != "halving by hand":
                label = f"{name} ({int(one['count'].max())})"
                axis.plot(one["steps"], one["mean"], color=colour, ls=line, lw=width, label=label)
        best, random_end = tables[task].full.max(), reference["mean"].max()
        axis.axhline(best, color="black", lw=0.8, ls=(0, (1, 3)))
        axis.annotate("best of the table", (60, best), xytext=(0, 3), textcoords="offset points", fontsize=8)
        start = float(np.nanmin(reference["mean"].iloc[3:4]))
        axis.set_ylim(start - 0.15 * (best - start), best + 0.08 * (best - start))
        axis.set_xlim(60, own["steps"].max())
        axis.axvline(960, color="black", lw=0.6, alpha=0.5)
        axis.annotate(
            "16 whole trials", (960, axis.get_ylim()[0]), xytext=(4, 6), textcoords="offset points", fontsize=8
        )
        axis.set(title=task, xlabel="training steps spent", ylabel="validation accuracy of the best design found")
        axis.grid(alpha=0.25)
        assert random_end <= best
    handles, labels = axes[0].get_legend_handles_labels()
    title = "strategy (repetitions)"
    figure.legend(handles, labels, title=title, loc="outside lower center", ncols=6, fontsize=9, title_fontsize=9)
    title = "Mean over the repetitions; grey band: middle half of random search without a pruner; broken lines prune"
    figure.suptitle(f"{title}\ns4: the line is planned for 64 trials, the dots for 16 and for 64", fontsize=10)
    figure.savefig(path, dpi=130)
