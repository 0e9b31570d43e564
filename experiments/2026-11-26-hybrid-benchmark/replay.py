"""Replay the strategies in worlds made from the recorded trainings: the real samplers, the trainings drawn.

replay.py OUT.csv [--repetitions 40] [--only STRATEGY ...]

The level of a design, its mean final loss over seeds, is a ridge regression on what is tuned where, fitted to the
recorded designs of a task; how well it predicts designs that it has not seen is printed (Spearman, leave-one-out). A
training of 30% shows a + b x level + noise, a whole one level + noise, with b and both noises as recorded. The best of
a search is what its own signal ranks first; `race` looks at the best third with a second seed. The portfolio of `race`
is chosen from the other task. Regret: the level of the pick above the lowest of 2,000 random designs and the recorded.

Left out: asha and hyperband, whose signals within the first 30% were not recorded; sensitivity, which needs gradients.
"""

from __future__ import annotations

import argparse
import csv
import random
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
from analyse import portfolio, read
from designs import drawn, fixed
from scipy.stats import spearmanr
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import LeaveOneOut, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from peftsearch.backbone.load import load_backbone
from peftsearch.design.budget import parse_budget
from peftsearch.design.design import Design
from peftsearch.design.feasibility import feasibility
from peftsearch.design.fitting import fit
from peftsearch.design.space import load_space
from peftsearch.samplers import SamplerContext, make_sampler
from peftsearch.samplers.strategy import load_strategy
from peftsearch.study.trials import TrialFacts, write_facts

WHOLE, RUNG = 300, 90
TRIALS = (4, 8, 12, 16, 32, 64)
BUDGET = "0.1%"
NAMES = (
    "random, whole trainings", "random", "tpe", "evolution", "gp", "nsga2", "s4",
    "race, then evolution", "race, then tpe", "race, then random", "race, portfolio alone",
)  # fmt: skip


class Bench:
    """The backbone, the space and the features of its designs."""

    def __init__(self) -> None:
        self.backbone = load_backbone(None, num_labels=6).backbone
        self.budget = parse_budget(BUDGET, self.backbone.n_params)
        space = load_space("hybrid")
        self.space = space.bound_to(len(self.backbone.blocks), space.methods)
        self.fits = feasibility(self.backbone, self.budget)
        self.features = cache(self._features)
        self.feasible = cache(self.fits)

    def _features(self, design: Design) -> tuple[float, ...]:
        architecture = fit(design, self.backbone, self.budget)
        blocks: dict[str, set[int]] = {}
        for place in architecture.placements:
            blocks.setdefault(place.method, set()).add(place.block)
        n = len(self.backbone.blocks)
        shares = [len(blocks.get(m, ())) / n for m in sorted(self.space.methods)]
        used = np.log(max(architecture.n_params, 1) / self.budget.n_params)
        tuned = len(set().union(*blocks.values())) / n if blocks else 0.0
        return (*shares, float(used), tuned, len(blocks))

    def random_designs(self, n: int) -> list[Design]:
        """Random designs that fit."""
        rng, found = random.Random(1), []
        while len(found) < n:
            design = self.space.design({d.name: rng.choice(d.choices) for d in self.space.dimensions})
            if self.feasible(design):
                found.append(design)
        return found


class Task:
    """The surrogate of one task."""

    def __init__(self, rows: pd.DataFrame, bench: Bench) -> None:
        designs = fixed() | drawn(bench.backbone, BUDGET)
        means = rows.groupby("name")["loss_100"].mean()
        x = np.array([bench.features(designs[name]) for name in means.index])
        model = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-1, 3, 17)))
        self.loo = float(spearmanr(cross_val_predict(model, x, means.to_numpy(), cv=LeaveOneOut()), means)[0])
        self.n = len(means)
        self._model = model.fit(x, means.to_numpy())
        self._bench = bench
        self.level = cache(self._level)
        wide = {s: own.set_index("name") for s, own in rows.groupby("seed")}
        both = wide[0].index.intersection(wide[1].index)
        ends = np.array([wide[s].loc[both, "loss_100"] for s in (0, 1)])
        rungs = np.array([wide[s].loc[both, "loss_mean_30"] for s in (0, 1)])
        ends, rungs = ends - ends.mean(1, keepdims=True), rungs - rungs.mean(1, keepdims=True)
        between = max(1e-8, float(np.mean(ends[0] * ends[1])))
        self.slope = float(np.mean([rungs[0] * ends[1], rungs[1] * ends[0]]) / between)
        self.noise_whole = float(np.sqrt(np.var(ends[0] - ends[1]) / 2))
        self.noise_rung = float(np.sqrt(max(1e-8, np.mean(rungs**2) - self.slope**2 * between)))
        self.lowest = min(self.level(d) for d in [*bench.random_designs(2000), *designs.values()])

    def _level(self, design: Design) -> float:
        return float(self._model.predict([self._bench.features(design)])[0])

    def train(self, design: Design, rng: np.random.Generator, *, whole: bool) -> float:
        """The loss that one training shows."""
        level = self.level(design)
        if whole:
            return float(level + self.noise_whole * rng.standard_normal())
        return float(self.slope * level + self.noise_rung * rng.standard_normal())


def search(name: str, task: Task, bench: Bench, others: list[str], n_trials: int, seed: int) -> tuple[int, float]:
    """Steps that a search took, and the level of its pick."""
    own, _, how = name.partition(", ")
    strategy = load_strategy(own)
    settings = dict(strategy.sampler_settings)
    if own == "race":
        settings |= {"portfolio": [_entry(o) for o in others]}
        settings |= {"then": how.removeprefix("then ")} if how.startswith("then ") else {}
    if how == "portfolio alone":
        n_trials = min(n_trials, len(others))
    context = SamplerContext(
        space=bench.space,
        n_trials=n_trials,
        seed=seed,
        feasible=bench.feasible,
        identity=lambda design: fit(design, bench.backbone, bench.budget),
        backbone=bench.backbone,
        budget=bench.budget,
    )
    sampler = make_sampler(strategy.sampler, context, settings)
    study = optuna.create_study(sampler=sampler, direction="maximize")
    exhausted = getattr(sampler, "exhausted", lambda trials: False)
    rng = np.random.default_rng([seed, n_trials])
    whole = how == "whole trainings"
    losses: dict[Design, list[float]] = {}
    steps = place = 0
    while place < 20 * n_trials and len(losses) < n_trials and not exhausted(study.get_trials(deepcopy=False)):
        place += 1
        trial = study.ask(context.distributions)
        write_facts(trial, TrialFacts(place=place))
        design = bench.space.design(trial.params)
        if not bench.feasible(design):
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            continue
        loss = task.train(design, rng, whole=whole)
        steps += WHOLE if whole else RUNG
        losses.setdefault(design, []).append(loss)
        study.tell(trial, -loss)
    if strategy.search.seeds > 1:
        for design in sorted(losses, key=lambda d: losses[d][0])[: -(-len(losses) // strategy.search.keep)]:
            losses[design].append(task.train(design, rng, whole=False))
            steps += RUNG
        losses = {d: found for d, found in losses.items() if len(found) > 1}
    decided = getattr(sampler, "decided_trial", lambda trials: None)(study.get_trials(deepcopy=False))
    pick = min(losses, key=lambda d: np.mean(losses[d])) if decided is None else bench.space.design(decided.params)
    return steps, task.level(pick)


def _entry(name: str) -> str | dict[str, str]:
    """A recorded design as an entry of a portfolio."""
    methods, _, shape = name.partition(", ")
    return {"methods": methods, "allocation": shape} if shape else methods


def main() -> None:
    """Repetition by repetition, so that the file is a fair part at any time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--repetitions", type=int, default=40)
    parser.add_argument("--only", nargs="+", default=NAMES)
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    bench, rows = Bench(), read()
    tasks = {name: Task(own, bench) for name, own in rows.groupby("task")}
    others = {name: portfolio(rows[rows["task"] != name], 8) for name in tasks}
    for name, task in tasks.items():
        facts = (task.n, task.loo, task.slope, task.noise_rung, task.noise_whole)
        print(name, "designs {}, leave-one-out {:.2f}, slope {:.2f}, noise {:.4f} {:.4f}".format(*facts), others[name])
    with arguments.out.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["task", "strategy", "trials", "repetition", "steps", "regret"])
        for seed in range(arguments.repetitions):
            writer.writerows(_repetition(seed, tasks, bench, others, arguments.only))
            file.flush()


def _repetition(
    seed: int, tasks: dict[str, Task], bench: Bench, others: dict[str, list[str]], names: list[str]
) -> Iterator[list[object]]:
    for name in names:
        for n_trials in TRIALS[:4] if name.startswith("gp") else TRIALS:
            for key, task in tasks.items():
                if name == "s4" and n_trials < 14:  # its stages need as many
                    continue
                steps, level = search(name, task, bench, others[key], n_trials, seed)
                yield [key, name, n_trials, seed, steps, round(level - task.lowest, 5)]


if __name__ == "__main__":
    main()
