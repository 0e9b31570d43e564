"""Processor time of a training step and counted memory of each method at one budget, against LoRA's.

    python cost.py OUT.csv [METHOD ...] [--budget 0.5%] [--rounds 6]

MiniLM, the embedded sentiment task, batches of 16. Each round runs three steps of LoRA and three of the method, on the
same batches, and takes the processor seconds of both (wall time would measure what else the machine does); the figure
is the median over the rounds of their quotient. Memory is what a trial counts: weights, what autograd keeps, gradients
and AdamW's states.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import time
from pathlib import Path

import torch

from peftsearch.backbone.load import load_backbone, reset_head
from peftsearch.design.baselines import uniform
from peftsearch.design.budget import parse_budget
from peftsearch.design.fitting import fit, smallest_budget
from peftsearch.design.shares import n_changed
from peftsearch.engine.job import Job
from peftsearch.engine.local import LocalEngine
from peftsearch.engine.loop import train
from peftsearch.engine.priming import prime
from peftsearch.engine.scoring import Scorer
from peftsearch.engine.settings import TrainingSettings
from peftsearch.errors import PeftSearchError
from peftsearch.injection.inject import inject, param_groups
from peftsearch.methods import METHODS
from peftsearch.tasks import load_embedded
from peftsearch.tasks.encoding.batches import batches
from peftsearch.tasks.encoding.encode import encode
from peftsearch.tasks.suite import Suite

CPU = torch.device("cpu")
SETTINGS = TrainingSettings()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("methods", nargs="*")
    parser.add_argument("--budget", default="0.5%")
    parser.add_argument("--rounds", type=int, default=6)
    a = parser.parse_args()
    task = load_embedded("sentiment", seed=0)
    loaded = load_backbone("demo", num_labels=task.num_labels, device=CPU)
    data = encode(task, loaded.tokenizer, SETTINGS.max_length)
    engine = LocalEngine(loaded, Suite(tasks=(task,)), [data], SETTINGS, CPU, None)
    backbone, loss_of = loaded.backbone, Scorer(task).loss

    def sized(name):
        budget = parse_budget(a.budget, backbone.n_params)
        try:
            return fit(uniform(name), backbone, budget)
        except PeftSearchError:  # too large for the budget: at its smallest
            return fit(
                uniform(name), backbone, parse_budget(str(smallest_budget(uniform(name), backbone)), backbone.n_params)
            )

    def seconds(architecture):
        with inject(loaded.model, architecture, backbone):
            reset_head(loaded.model, backbone, 0)
            prime(loaded.model, batches(data.train, 16, seed=0, steps=1), loss_of=loss_of)
            steps = train(
                loaded.model, param_groups(loaded.model, 1e-3), batches(data.train, 16, seed=1, steps=4), n_steps=4,
                settings=SETTINGS, loss_of=loss_of, device=CPU,
            )  # fmt: skip
            next(steps)  # warms up
            started = time.process_time()
            for _ in steps:
                pass
            return (time.process_time() - started) / 3

    with a.out.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("method", "n_params", "n_changed", "step_ratio", "step_cpu_s", "peak_memory_mb", "rounds"))
        lora = sized("lora")
        for name in a.methods or METHODS:
            own = sized(name)
            changed = n_changed(own, backbone)
            pairs = [(seconds(lora), seconds(own)) for _ in range(a.rounds)]
            ratio = statistics.median(mine / its for its, mine in pairs)
            memory = engine.run(Job(architecture=own, learning_rate=1e-3, steps=1)).measures["peak_memory_bytes"]
            mine = statistics.median(mine for _, mine in pairs)
            writer.writerow(
                (name, own.n_params, changed, f"{ratio:.3f}", f"{mine:.4f}", f"{memory / 1e6:.1f}", a.rounds)
            )
            file.flush()


if __name__ == "__main__":
    main()
