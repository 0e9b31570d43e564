"""Train each method alone on all blocks and append a row for each training to a CSV; rows that are there are skipped.

    DATA=folder python measure.py TASK OUT.csv [METHOD ...] [--budgets 0.1% 0.5%] [--steps 60] [--seeds 3] [--scales 1]

TASK is a folder under DATA with train.jsonl and validation.jsonl. --scales multiplies the methods' own learning rates.
"""

from __future__ import annotations

import argparse
import csv
import os
import time
from dataclasses import replace
from pathlib import Path

import torch

import peftsearch.injection
from peftsearch.backbone.load import load_backbone
from peftsearch.baselines import uniform
from peftsearch.budget import parse_budget
from peftsearch.engines.job import Job
from peftsearch.engines.local import LocalEngine
from peftsearch.errors import PeftSearchError
from peftsearch.fitting import fit
from peftsearch.methods import METHODS
from peftsearch.tasks import resolve_task
from peftsearch.tasks.encode import encode
from peftsearch.tasks.suite import Suite
from peftsearch.training import Diverged, TrainingSettings

KEY = ("task", "method", "budget", "scale", "seed")
FIELDS = (*KEY, "n_params", "n_changed", "steps", "score", "loss", "train_cpu_s", "reason")


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
    task = resolve_task(None, train=str(folder / "train.jsonl"), validation=str(folder / "validation.jsonl"), seed=0)
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
    own = dict(METHODS)
    for budget in a.budgets:
        for name in a.methods or own:
            for scale in a.scales:
                for seed in range(a.seeds):
                    if (a.task, name, budget, str(scale), str(seed)) in done:
                        continue
                    METHODS[name] = replace(own[name], lr_scale=own[name].lr_scale * scale)
                    row = train(engine, loaded.backbone, name, budget, seed, a.steps)
                    with a.out.open("a") as file:
                        csv.DictWriter(file, FIELDS).writerow(
                            {"task": a.task, "method": name, "budget": budget, "scale": scale, "seed": seed} | row
                        )
                    METHODS[name] = own[name]


def train(engine: LocalEngine, backbone: object, name: str, budget: str, seed: int, steps: int) -> dict[str, object]:
    """One training; of a method that does not fit the reason alone."""
    try:
        architecture = fit(uniform(name), backbone, parse_budget(budget, backbone.n_params))
    except PeftSearchError as error:
        return {"steps": 0, "reason": str(error)}
    blocks = {(block.stack, block.index): block for block in backbone.blocks}
    changed = sum(METHODS[p.method].changed(blocks[p.stack, p.block], p.size) for p in architecture.placements)
    started = time.process_time()
    job = Job(architecture=architecture, learning_rate=1e-2, steps=steps, seed=seed, measure=False)
    facts = {"n_params": architecture.n_params, "n_changed": changed, "steps": steps}
    try:
        outcome = engine.run(job)
    except Diverged as error:
        return facts | {"reason": str(error)}
    cpu = round(time.process_time() - started, 2)
    return facts | {"score": round(outcome.score, 4), "loss": round(outcome.loss, 4), "train_cpu_s": cpu}


if __name__ == "__main__":
    assert peftsearch.injection.METHODS is METHODS, "the table that the injection reads is patched"
    main()
