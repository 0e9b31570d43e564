"""Record trainings, one row each, in the order of a plan; rows that are made are not made again.

record.py DATA TASK PLAN [BUDGET] [back]

With `back` the plan is worked through from its end, by a second process beside the first.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from bench import Bench, Job
from designs import drawn, fixed

from peftsearch.design.budget import parse_budget
from peftsearch.design.design import Design
from peftsearch.design.feasibility import feasibility

HERE = Path(__file__).parent
(HERE / "examples").mkdir(exist_ok=True)
COLUMNS = [
    "task", "name", "budget", "factor", "seed", "n_params", "blocks",
    "loss_10", "acc_10", "loss_mean_10", "acc_mean_10", "loss_30", "acc_30", "loss_mean_30", "acc_mean_30",
    "loss_100", "acc_100", "cpu_s", "error",
]  # fmt: skip
RATES = {
    "0.1%": ("lora:attention", "lora_shared_a", "lora_shared_a:ffn", "lora_shared_a:all", "ia3:all"),
    "0.5%": ("lora:ffn", "adapter", "adapter_parallel", "prefix", "krona", "lora", "lora_shared_a"),
}
"""Arms whose rates the groundwork lacks, by budget."""


def rates(task: str) -> Iterator[Job]:
    """The rate of every arm of `RATES`, and two on either side."""
    for budget, names in RATES.items():
        for name in names:
            for factor in (1.0, 0.4, 2.5):
                yield Job(task=task, name=name, design=fixed()[name], budget=budget, factor=factor, by_table=True)


OTHERS = (
    "adapter_pfeiffer", "adapter_sparse", "adamix", "dora", "krona_res", "phm", "compacter", "compacter_pp",
    "diffpruning", "said", "prefix_mlp", "mam", "unipelt", "prompt", "ptuning", "fishmask", "far", "ladder",
)  # fmt: skip
"""Methods outside `hybrid`, at the package's rates and others, in trainings of half the length."""


def others(bench: Bench, task: str) -> Iterator[Job]:
    """The first of two budgets that a method fits into, at its own rate and two on either side."""
    for name in OTHERS:
        design = Design(grouping="uniform", allocation=(1.0,) * 4, methods=((name,),) * 4, leave_out=True)
        sizes = {
            text: feasibility(bench.backbone, parse_budget(text, bench.backbone.n_params)) for text in ("0.1%", "0.5%")
        }
        budget = next((text for text, fits in sizes.items() if fits(design)), None)
        for factor in (1.0, 0.4, 2.5) if budget else ():
            yield Job(task=task, name=name, design=design, budget=budget, factor=factor, steps=150)


def main(bench: Bench, task: str, plan: str, budget: str) -> Iterator[Job]:
    """All designs with two seeds, and every second one with a third; every second one first."""
    if plan == "rates":
        yield from rates(task)
        return
    if plan == "others":
        yield from others(bench, task)
        return
    designs = fixed() | drawn(bench.backbone, budget)
    names = list(designs)
    order = ((0, names[::2]), (1, names[::2]), (0, names[1::2]), (1, names[1::2]), (2, names[::2]))
    for seed, chosen in order:
        for name in chosen:
            yield Job(task=task, name=name, design=designs[name], budget=budget, seed=seed)


def made(path: Path) -> set[tuple[str, ...]]:
    """Keys of the recorded trainings."""
    if not path.exists():
        return set()
    with path.open(newline="") as file:
        return {tuple(row[name] for name in COLUMNS[:5]) for row in csv.DictReader(file)}


if __name__ == "__main__":
    torch.set_num_threads(1)
    data, task, plan = sys.argv[1:4]
    budget = sys.argv[4] if len(sys.argv) > 4 and sys.argv[4] != "back" else "0.1%"
    path = HERE / f"{plan}-{task}.csv"
    bench = Bench(Path(data), task)
    jobs = list(main(bench, task, plan, budget))
    for job in reversed(jobs) if sys.argv[-1] == "back" else jobs:
        if job.key in made(path):
            continue
        row, looks = bench.run(job)
        if plan == "designs":
            name = "-".join(job.key).replace(" ", "_").replace(":", ".")
            np.savez_compressed(HERE / "examples" / f"{name}.npz", **looks)
        with path.open("a", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            if file.tell() == 0:
                writer.writeheader()
            writer.writerow(row)
