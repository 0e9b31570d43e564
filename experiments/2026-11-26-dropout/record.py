"""Train designs of ../2026-11-26-hybrid-benchmark without dropout in the backbone; its own rows have it.

record.py DATA TASK
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "2026-11-26-hybrid-benchmark"))

from bench import Bench, Job
from designs import fixed
from record import COLUMNS, made

NAMES = (
    "lora", "ia3:all", "adapter_parallel", "lora:ffn", "ia3+layernorm+adapter_parallel", "ia3+krona", "bitfit",
    "prefix",
)  # fmt: skip
HERE = Path(__file__).parent

if __name__ == "__main__":
    torch.set_num_threads(1)
    data, task = sys.argv[1:3]
    path = HERE / f"without-{task}.csv"
    bench = Bench(Path(data), task)
    bench.model.set_attn_implementation("eager")  # sdpa without dropout is slow in bf16
    for module in bench.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    for seed in (0, 1):
        for name in NAMES:
            job = Job(task=task, name=name, design=fixed()[name], budget="0.1%", seed=seed)
            if job.key in made(path):
                continue
            row, _ = bench.run(job)
            with path.open("a", newline="") as file:
                writer = csv.DictWriter(file, COLUMNS)
                if file.tell() == 0:
                    writer.writeheader()
                writer.writerow(row)
