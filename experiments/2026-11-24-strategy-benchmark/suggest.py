"""Suggestions a second of every sampler with 1,000 and 10,000 completed trials in the history: python suggest.py

Space `s4` on MiniLM-L6 at 0.2%, random designs with random scores as the history, study in memory. The processor's
seconds are measured, since the machine is loaded. The first suggestion of a process is given apart: it fits the designs
of the whole history once to know what was trained already. The histories of s4 and nsga2 bear the notes (stage,
generation) that their own trials would have. A cell is given up after LIMIT_S. Appends to suggest.csv here.
"""

from __future__ import annotations

import argparse
import csv
import multiprocessing
import random
import resource
import time
import warnings
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Any

import optuna
from optuna.samplers import BaseSampler
from recorded import HERE, TASKS, load_measured

from peftsearch.design.feasibility import feasibility
from peftsearch.design.fitting import fit
from peftsearch.design.space import load_space
from peftsearch.samplers import SAMPLERS, SamplerContext, make_sampler
from peftsearch.samplers.nsga2 import NSGA2Sampler
from peftsearch.study.trials import Slot, slot_attributes

LIMIT_S = 60
"""Processor seconds of a cell, its history apart."""
SIZES = (1000, 10_000)
_MOST, _ENOUGH_S = 20, 5.0
_POPULATION = 8
LEFT_OUT = {("gp", 10_000): "the kernel matrix alone takes 0.8 GB, a fit many times the cube of 10,000 operations"}


def make_context(n_trials: int) -> SamplerContext:
    """As a run makes it."""
    measured = load_measured()
    space = load_space("s4").bound_to(6, ("adapter", "prefix", "bitfit", "lora"))
    return SamplerContext(
        space=space,
        n_trials=n_trials,
        seed=0,
        feasible=feasibility(measured.backbone, measured.budget),
        identity=lambda design: fit(design, measured.backbone, measured.budget),
        backbone=measured.backbone,
        budget=measured.budget,
        sensitivity=lambda: measured.scores[TASKS[0]],
    )


def points(sampler: BaseSampler, context: SamplerContext, study: optuna.Study, n: int) -> list[tuple[dict, dict]]:
    """Parameters and system attributes of a history."""
    if hasattr(sampler, "decisions"):
        progress = sampler._replay(study.get_trials(deepcopy=False))
        slots = [Slot(stage=progress.stage, choice=s.choice, repeat=s.repeat) for s in progress.slots]
        marks = [slot_attributes(slot) for slot in slots]
        return [(s.params, mark) for s, mark in zip(progress.slots, marks, strict=True)][:n]
    rng, found = random.Random(0), []
    while len(found) < n:
        params = {d.name: rng.choice(d.choices) for d in context.space.dimensions}
        if context.feasible(context.space.design(params)):
            found.append((params, {NSGA2Sampler._get_generation_key(): len(found) // _POPULATION}))
    return found


def make_study(name: str, n: int, context: SamplerContext) -> optuna.Study:
    """A study of n completed trials."""
    settings = {"nsga2": {"population_size": _POPULATION}}.get(name, {})
    sampler, rng = make_sampler(name, context, settings), random.Random(1)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    while (left := n - len(study.trials)) > 0:
        for params, attributes in points(sampler, context, study, left):
            study.add_trial(
                optuna.trial.create_trial(
                    params=params, distributions=context.distributions, value=rng.random(), system_attrs=attributes
                )
            )
    last = (n - 1) // _POPULATION
    for generation in (last, last + 1):  # the parents of a generation are stored when it begins
        members = [t._trial_id for t in study.trials[(generation - 1) * _POPULATION : generation * _POPULATION]]
        key = NSGA2Sampler._get_parent_cache_key_prefix() + str(generation)
        study._storage.set_study_system_attr(study._study_id, key, members)
    return study


def measure(name: str, n: int, pipe: Connection) -> None:
    """Processor seconds of the first suggestion and of the following ones, in a process of its own."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    context = make_context(2 * n)
    study = make_study(name, n, context)
    context = replace(context, feasible=make_context(1).feasible)  # as a new process: nothing is known of a design
    study.sampler = make_sampler(name, context, {})
    limit = int(time.process_time() + LIMIT_S)
    resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 1))
    taken: list[float] = []
    while len(taken) <= _MOST and sum(taken[1:]) < _ENOUGH_S:
        started = time.process_time()
        trial = study.ask(context.distributions)
        taken.append(time.process_time() - started)
        study.tell(trial, 0.5)
        pipe.send(taken)


def cell(name: str, n: int) -> dict[str, Any]:
    """One sampler and history."""
    row: dict[str, Any] = {"sampler": name, "history": n}
    if (name, n) in LEFT_OUT:
        return row | {"note": LEFT_OUT[name, n]}
    receiver, sender = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=measure, args=(name, n, sender))
    process.start()
    sender.close()
    taken: list[float] = []
    try:
        while True:
            taken = receiver.recv()
    except EOFError:
        process.join()
    note = "" if process.exitcode == 0 else f"given up after {LIMIT_S} s of the processor"
    if not taken:
        return row | {"note": note}
    row |= {"first_s": round(taken[0], 4), "n": len(taken) - 1, "note": note}
    return row | ({"per_s": round((len(taken) - 1) / sum(taken[1:]), 2)} if len(taken) > 1 else {})


def main() -> None:
    """Every cell, those with short histories first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=list(SAMPLERS))
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    arguments = parser.parse_args()
    path, columns = HERE / "suggest.csv", ["sampler", "history", "first_s", "per_s", "n", "note"]
    if not path.exists():
        path.write_text(",".join(columns) + "\n")
    for n, name in ((n, name) for n in arguments.sizes for name in arguments.only):
        row = cell(name, n)
        print(row, flush=True)
        with path.open("a", newline="") as file:
            csv.DictWriter(file, columns).writerow(row)


if __name__ == "__main__":
    main()
