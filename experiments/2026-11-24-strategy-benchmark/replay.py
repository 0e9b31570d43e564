"""Replay every strategy on the recorded tables: the real samplers and pruners, the trainings looked up.

Usage: python replay.py OUT.csv [--seeds 0 100] [--gp 20] [--only STRATEGY ...] [--tables FOLDER] [--simulate]

A trial costs the 60 steps of its training. A strategy with a pruner is shown the design's score after 24 steps first,
and a trial that it stops costs 24. (That score is of a training of 24 steps with a learning-rate schedule of its own,
as a user's shorter fidelity would be, and not an intermediate score of the longer one.) A training that failed is a
failed trial of 60 steps. An architecture is not trained twice with one seed: its score is taken over at no cost, as in
a real search. Every strategy may spend 60 x TRIALS steps, however many trials it makes of them. The baselines of a real
search are left out: they are not in the table.

The file has a row for each time the best design so far changes: task, strategy, trials (the budget in whole trials),
repetition (the sampler's seed), steps spent by then, point, score. The design that S4's stages decide on is a strategy
of its own there.

With `--simulate` each repetition has a world of its own, in which the truth is known: the recorded scores, drawn
together by the root of the rank correlation between seeds, are the designs' levels, and every training adds noise drawn
from the recorded differences between seeds, S4's repeats included. Luck then pays nobody.
"""

from __future__ import annotations

import argparse
import csv
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
from recorded import FULL, HERE, LOW, TASKS, Measured, Table, load_measured, load_table
from table_space import SPACE

from peftsearch.catalog import shipped
from peftsearch.design.architecture import Architecture
from peftsearch.samplers import SamplerContext, make_sampler
from peftsearch.samplers.pruners import make_pruner
from peftsearch.samplers.strategy import SearchFidelity, load_strategy
from peftsearch.study.private_optuna import stored_trial
from peftsearch.study.trials import TrialFacts, derived_seed, replicate_of, write_facts

BUDGETS = (16, 64)
COLUMNS = ["task", "strategy", "trials", "repetition", "steps", "point", "score"]
BY_HAND = "halving by hand"
EXTRA = ("random, no pruner", "tpe, no pruner", BY_HAND)
"""What is replayed beside the shipped strategies."""
OWN_RUN = ("s4", "gp", BY_HAND)
"""Each budget is a run of its own: they plan with the number of trials, or the longest run takes too long."""
DECIDED = "s4: decision"
"""What S4's stages decide on, beside the best trial that it trained."""


@dataclass(frozen=True)
class World:
    """What a training of a point scores."""

    low: dict[int, float]
    """After 24 steps."""
    full: Callable[[int, int], float]
    """After 60 steps, of a point and a replicate (training seed); NaN is a failed training."""

    @classmethod
    def recorded(cls, table: Table) -> World:
        """Seed 0 for every replicate: seed 1 is there for a part of the table alone."""
        full = table.full.to_dict()
        return cls(low=table.low.to_dict(), full=lambda point, replicate: full[point])

    @classmethod
    def simulated(cls, table: Table, repetition: int) -> World:
        """Levels with the designs' own spread, noise anew for every repetition, point and replicate."""
        noise, levels = table.noise(), simulated_levels(table).to_dict()

        def full(point: int, replicate: int) -> float:
            rng = np.random.default_rng(derived_seed(table.task, repetition, point, replicate))
            return float(levels[point] + rng.choice(noise.residuals))

        return cls(low=table.low.to_dict(), full=full)


def simulated_levels(table: Table) -> pd.Series:
    """The designs' levels of a simulated world."""
    return table.full.mean() + table.noise().rank_correlation ** 0.5 * (table.full - table.full.mean())


class Space:
    """What a replay needs of the space, worked out once."""

    def __init__(self, measured: Measured) -> None:
        points = SPACE.points()
        self.measured = measured
        self.point_of = {SPACE.design(params).key: i for i, params in enumerate(points)}
        self.architecture_of = dict(zip(self.point_of, measured.architectures, strict=True))

    def context(self, table: Table, n_trials: int, seed: int) -> SamplerContext:
        """As a run makes it; a design that was not recorded does not fit."""
        return SamplerContext(
            space=SPACE,
            n_trials=n_trials,
            seed=seed,
            feasible=lambda design: self.point_of[design.key] in table.full.index,
            identity=lambda design: self.architecture_of[design.key],
            backbone=self.measured.backbone,
            budget=self.measured.budget,
            sensitivity=lambda: self.measured.scores[table.task],
        )


def search(
    name: str, table: Table, world: World, space: Space, n_trials: int, seed: int
) -> list[tuple[str, int, int, float]]:
    """Run one strategy; returns (strategy, steps spent, point, score) whenever the best so far changes."""
    strategy = replace(load_strategy(name.split(",")[0]), search=SearchFidelity(steps=FULL, evaluations=1))
    if "," in name:
        strategy = replace(strategy, pruner="none", pruner_settings={})
    context = space.context(table, n_trials, seed)
    sampler = make_sampler(strategy.sampler, context, dict(strategy.sampler_settings))
    study = optuna.create_study(sampler=sampler, pruner=make_pruner(strategy), direction="maximize")
    exhausted = getattr(sampler, "exhausted", lambda trials: False)
    trained: dict[tuple[Architecture, int], float] = {}
    best: list[tuple[str, int, int, float]] = []
    spent = 0
    for place in range(1, 20 * n_trials):  # an end for samplers that propose known designs only
        if spent + FULL > FULL * n_trials or exhausted(study.get_trials(deepcopy=False)):
            break
        trial = study.ask(context.distributions)
        write_facts(trial, TrialFacts(place=place))
        key = SPACE.design(trial.params).key
        point = space.point_of[key]
        replicate = replicate_of(stored_trial(study, trial))
        training = (space.architecture_of[key], replicate)
        if training not in trained:
            if strategy.pruner != "none" and not np.isnan(world.low[point]):
                trial.report(world.low[point], LOW)
                if trial.should_prune():
                    spent += LOW
                    study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                    continue
            spent += FULL
            trained[training] = world.full(point, replicate)
        score = trained[training]
        if np.isnan(score):
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            continue
        study.tell(trial, score)
        if not best or score > best[-1][3]:
            best.append((name, spent, point, score))
    decided = getattr(sampler, "decided_trial", lambda trials: None)(study.get_trials(deepcopy=False))
    if decided is not None:
        best.append((DECIDED, spent, space.point_of[SPACE.design(decided.params).key], float(decided.value)))
    return best


def halving(table: Table, world: World, n_trials: int, seed: int) -> list[tuple[str, int, int, float]]:
    """By hand: designs drawn at random at 24 steps, the best quarter of them at 60, best first."""
    n_drawn = min(len(table.full), FULL * n_trials // (LOW + (FULL - LOW) // 4))
    drawn = np.random.default_rng(derived_seed("halving", seed)).permutation(table.full.index)[:n_drawn]
    order = sorted(drawn, key=lambda p: -np.nan_to_num(world.low[p]))
    spent, best = LOW * n_drawn, []
    for point in order[: n_drawn // 4]:
        spent += FULL - LOW
        score = world.full(int(point), 0)
        if not best or score > best[-1][3]:
            best.append((BY_HAND, spent, int(point), score))
    return best


def repetition(name: str, seed: int, table: Table, space: Space, world: World, long: bool) -> Iterator[list[object]]:
    """The rows of one strategy, task and sampler seed."""
    budgets = BUDGETS[: 1 + long] if name in OWN_RUN else BUDGETS[-1:]
    for n_trials in budgets:
        if name == BY_HAND:
            found = halving(table, world, n_trials, seed)
        else:
            found = search(name, table, world, space, n_trials, seed)
        for strategy, steps, point, score in found:
            yield [table.task, strategy, n_trials, seed, steps, point, round(score, 5)]


def main() -> None:
    """Repetition by repetition, all strategies on both tasks: what is in the file at any time is a fair part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument(
        "--seeds", type=int, nargs=2, default=(0, 100), help="first repetition, and the one after the last"
    )
    parser.add_argument("--gp", type=int, default=20, help="repetitions of gp with 64 trials: it fits a model for each")
    parser.add_argument("--tables", type=Path, default=HERE)
    parser.add_argument("--simulate", action="store_true")
    parser.add_argument("--only", nargs="+", default=[*shipped("strategies"), *EXTRA], help="strategies")
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    space = Space(load_measured())
    tables = [load_table(arguments.tables / f"{task}.csv") for task in TASKS]
    spent: dict[str, float] = {}
    with arguments.out.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for seed in range(*arguments.seeds):
            for table, name in product(tables, arguments.only):
                started = time.process_time()
                world = World.simulated(table, seed) if arguments.simulate else World.recorded(table)
                long = name != "gp" or seed < arguments.gp
                writer.writerows(repetition(name, seed, table, space, world, long))
                spent[name] = spent.get(name, 0.0) + time.process_time() - started
            file.flush()
    print({table.task: len(table.full) for table in tables}, {name: round(s) for name, s in spent.items()})


if __name__ == "__main__":
    main()
