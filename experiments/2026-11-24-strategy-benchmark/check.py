"""Hold the replay against a hand-made table whose answers are known: python check.py

The table is complete, its score a sum over dimensions with one best choice each, the score after 24 steps equal to it.
"""

from __future__ import annotations

import warnings

import numpy as np
import optuna
import pandas as pd
from recorded import FULL, LOW, Table, load_measured
from replay import DECIDED, Space, World, halving, search
from summary import random_expectation
from table_space import SPACE

WORTH = {"grouping": 1, "allocation": 2, "methods.G1": 4, "methods.G2": 8, "methods.G3": 16, "methods.G4": 32}
"""Weight of each dimension; the last choice is the best, by as many steps as it stands behind the first."""


def hand_made() -> Table:
    """The whole space."""
    choices = {d.name: d.choices for d in SPACE.dimensions}
    scores = [sum(w * choices[name].index(p[name]) for name, w in WORTH.items()) for p in SPACE.points()]
    full, none = pd.Series(scores, dtype=float), pd.Series(dtype=float)
    return Table(task="trec", low=full, full=full, low_again=none, full_again=none, n_params=full)


def main() -> None:
    """Raise where an answer is wrong."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    table, space = hand_made(), Space(load_measured())
    world, best = World.recorded(table), int(table.full.idxmax())
    assert table.full[best] == 123, "1 + 2 + 2 x (4 + 8 + 16 + 32)"
    for seed in range(20):
        for trials in (16, 64):  # scores add up and completions are shared: every stage decides for the best choice
            (decision,) = [r for r in search("s4", table, world, space, trials, seed) if r[0] == DECIDED]
            assert decision[2] == best, (seed, trials)
            assert decision[1] <= FULL * trials
    finals = []
    for seed in range(200):
        path = search("random, no pruner", table, world, space, 16, seed)
        assert all(steps % FULL == 0 for _, steps, _, _ in path), "whole trials"
        assert [r[3] for r in path] == sorted({r[3] for r in path}), "the best so far rises"
        finals.append(path[-1][3])
        pruned = search("asha", table, world, space, 16, seed)
        assert all(any((steps - LOW * k) % FULL == 0 for k in range(41)) for _, steps, _, _ in pruned)
        drawn = halving(table, world, 16, seed)
        assert drawn == [("halving by hand", LOW * 29 + FULL - LOW, drawn[0][2], drawn[0][3])], "its first is its best"
    exact, error = random_expectation(table, 16), np.std(finals) / len(finals) ** 0.5
    print(f"best of 16 random designs: {np.mean(finals):.2f} +- {error:.2f} in the replay, {exact:.2f} exactly")
    assert abs(np.mean(finals) - exact) < 4 * error
    broken = pd.Series(np.nan, index=table.full.index)
    failing = World(low=table.low.to_dict(), full=lambda point, replicate: broken[point])
    assert search("tpe", table, failing, space, 16, 0) == [], "failed trainings are failed trials"
    print("all answers as they should be")


if __name__ == "__main__":
    main()
