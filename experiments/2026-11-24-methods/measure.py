"""Train each method alone on all blocks and append a row for each training to a CSV; rows that are there are skipped.

    DATA=folder python measure.py TASK OUT.csv [METHOD ...] [--budgets 0.1% 0.5%] [--steps 60] [--seeds 3] [--scales 1]

TASK is a folder under DATA with train.jsonl and validation.jsonl. --scales multiplies the methods' own learning rates,
not the head's. METHOD may also be head (the head alone) and full (all weights).
"""

from __future__ import annotations

import argparse
import csv
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from peftsearch.backbone.load import LoadedBackbone, load_backbone
from peftsearch.design.architecture import Architecture
from peftsearch.design.baselines import uniform
from peftsearch.design.budget import parse_budget
from peftsearch.design.fitting import fit
from peftsearch.design.references import FULL_LEARNING_RATE, make_reference
from peftsearch.design.shares import n_changed
from peftsearch.engine.job import Job
from peftsearch.engine.local import LocalEngine
from peftsearch.engine.settings import TrainingSettings
from peftsearch.errors import Diverged, PeftSearchError
from peftsearch.methods import METHODS
from peftsearch.options import TaskOptions
from peftsearch.tasks import resolve_task
from peftsearch.tasks.encoding.encode import encode
from peftsearch.tasks.suite import Suite

KEY = ("task", "method", "budget", "scale", "seed", "steps")
FIELDS = (*KEY, "n_params", "n_changed", "score", "loss", "train_cpu_s", "reason")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("task")
    parser.add_argument("out", type=Path)
    parser.add_argument("methods", nargs="*")
    parser.add_argument("--budgets", nargs="+", default=["0.1%", "0.5%"])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--scales", type=float, nargs="+", default=[1.0])
    a = parser.parse_args()
    folder = Path(os.environ["DATA"]) / a.task
    task = resolve_task(TaskOptions(train=folder / "train.jsonl", validation=folder / "validation.jsonl"))
    settings = TrainingSettings(max_length=64)
    loaded = load_backbone("demo", num_labels=task.num_labels, device=torch.device("cpu"))
    encoded = encode(task, loaded.tokenizer, settings.max_length)
    engine = LocalEngine(loaded, Suite(tasks=(task,)), [encoded], settings, torch.device("cpu"), None)
    done = set()
    if a.out.exists():
        with a.out.open() as file:
            done = {tuple(row[key] for key in KEY) for row in csv.DictReader(file)}
    else:
        with a.out.open("w") as file:
            csv.writer(file).writerow(FIELDS)
    for budget in a.budgets:
        for name in a.methods or METHODS:
            for scale in a.scales:
                for seed in range(a.seeds):
                    key = dict(zip(KEY, (a.task, name, budget, scale, seed, a.steps), strict=True))
                    if tuple(map(str, key.values())) not in done:
                        with scaled(name, scale):
                            row = train(engine, loaded, name, budget, seed, a.steps)
                        with a.out.open("a") as file:
                            csv.DictWriter(file, FIELDS).writerow(key | row)


@contextmanager
def scaled(name: str, scale: float) -> Iterator[None]:
    """Change a method's own rate, in the table that the injection reads."""
    own = METHODS.get(name)
    if own is not None:
        METHODS[name] = replace(own, lr_scale=own.lr_scale * scale)
    try:
        yield
    finally:
        if own is not None:
            METHODS[name] = own


def train(
    engine: LocalEngine, loaded: LoadedBackbone, name: str, budget: str, seed: int, steps: int
) -> dict[str, object]:
    """One training; of a method that does not fit the reason alone."""
    backbone, rate = loaded.backbone, 1e-2
    try:
        if name == "full":
            what, rate = make_reference("full", loaded), FULL_LEARNING_RATE
            changed = what.n_params
        else:
            empty = Architecture(placements=())
            what = empty if name == "head" else fit(uniform(name), backbone, parse_budget(budget, backbone.n_params))
            changed = n_changed(what, backbone)
    except PeftSearchError as error:
        return {"reason": str(error)}
    started = time.process_time()
    job = Job(architecture=what, learning_rate=rate, steps=steps, seed=seed, measure=False)
    facts = {"n_params": what.n_params, "n_changed": changed}
    try:
        outcome = engine.run(job)
    except Diverged as error:
        return facts | {"reason": str(error)}
    cpu = round(time.process_time() - started, 2)
    return facts | {"score": round(outcome.score, 4), "loss": round(outcome.loss, 4), "train_cpu_s": cpu}


if __name__ == "__main__":
    main()
