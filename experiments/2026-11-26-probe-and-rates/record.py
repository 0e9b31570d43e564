"""Train arms from a probed head at several rates; append each training to a CSV as it is made.

Usage: python record.py DATA PART OUT.csv [--until HH:MM] [--cache FOLDER]

DATA/TASK holds train.jsonl and validation.jsonl of sst5, trec and cr; entailment is the embedded task. PART is

    probes    what the probe itself reaches, by penalty and kind, without a step of training
    heads     experiment A: how the probe goes in
    rates     experiment B: the learning rate of every method, from the head that A decided
    check     the same trainings in float32 and in bfloat16

It can be stopped and started again: what is in the file is not trained again. The test splits are never read.
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path

import numpy as np
import torch
from bench import COLUMNS, KEY, Bench
from plans import ARMS, HEAD, PLANS
from summarise import read
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel


def append(out: Path, row: dict[str, object], columns: list[str]) -> None:
    new = not out.exists()
    with out.open("a", newline="") as file:
        writer = csv.DictWriter(file, columns)
        if new:
            writer.writeheader()
        writer.writerow(row)


def probes(data: Path, out: Path, cache: Path | None) -> None:
    """Loss of the probes: in evaluation, and in training mode with and without the dropout before the classifier."""
    columns = [
        "task",
        "n_train",
        "features_std",
        "kind",
        "c",
        "head_norm",
        "val_loss",
        "val_acc",
        "noisy_loss",
        "noisy_dropout_loss",
        "fit_s",
    ]
    for name in ("trec", "sst5", "cr", "entailment"):
        bench = Bench(data, name, "bf16", cache)
        mean, std = bench.moments()
        x, noisy = torch.tensor(bench.features("validation")), torch.tensor(bench.features("validation", True))
        for kind in ("clean", "noisy"):
            for c in ("0.0001", "0.001", "0.01", "0.1", "1"):
                started = time.process_time()
                weight, bias = bench.probe(kind, c)
                spent = time.process_time() - started
                raw = weight / std

                def loss(
                    v: torch.Tensor, w: torch.Tensor = raw, b: torch.Tensor = bias - raw @ mean, y=bench.labels
                ) -> float:
                    return float(functional.cross_entropy(v @ w.T + b, y))

                torch.manual_seed(0)
                logits = x @ raw.T + (bias - raw @ mean)
                row = {
                    "task": name,
                    "n_train": len(bench.task.train),
                    "features_std": round(float(std.mean()), 4),
                    "kind": kind,
                    "c": c,
                    "head_norm": round(float(raw.norm()), 2),
                    "val_loss": round(loss(x), 4),
                    "val_acc": round(float((logits.argmax(-1) == bench.labels).float().mean()), 4),
                    "noisy_loss": round(loss(noisy), 4),
                    "noisy_dropout_loss": round(np.mean([loss(functional.dropout(noisy, 0.1)) for _ in range(5)]), 4),
                    "fit_s": round(spent, 2),
                }
                append(out, row, columns)
                print(row, flush=True)


def reuse(out: Path) -> None:
    """Take over what experiment A and the check have trained with the same settings."""
    wanted = {**HEAD, "precision": "bf16", "error": ""}
    for name in ("heads.csv", "check.csv"):
        for row in read(out.parent / name):
            if all(row[key] == text for key, text in wanted.items()) and (row["arm"], row["budget"]) in ARMS:
                known = [(r["task"], r["arm"], r["rate"]) for r in read(out)]
                if (row["task"], row["arm"], row["rate"]) not in known:
                    append(out, {**row, "part": "rates"}, COLUMNS)


def main() -> None:
    """Train what is missing."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("part", choices=["probes", *PLANS])
    parser.add_argument("out", type=Path)
    parser.add_argument("--until", help="start nothing after this time of day (UTC, HH:MM)")
    parser.add_argument("--cache", type=Path, help="a folder that keeps the features between two starts")
    args = parser.parse_args()
    if args.cache is not None:
        args.cache.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    if args.part == "probes":
        probes(args.data, args.out, args.cache)
        return
    if args.part == "rates" and not args.out.exists():
        reuse(args.out)
    benches: dict[tuple[str, str], Bench] = {}
    while True:
        if args.until and time.strftime("%H:%M", time.gmtime()) >= args.until:
            return
        rows = read(args.out)
        done = {tuple(row[name] for name in KEY) for row in rows}
        job = next((job for job in PLANS[args.part](rows) if job.key not in done), None)
        if job is None:
            return
        where = (job.task, job.precision)
        if where not in benches:
            benches[where] = Bench(args.data, *where, args.cache)
        with sdpa_kernel(SDPBackend.MATH):  # the flash kernel of the CPU takes most of a step in bfloat16
            row = benches[where].run(job)
        append(args.out, row, COLUMNS)
        if args.part == "rates" and not row.get("error"):
            curve = {f"train_{10 * (i + 1)}": loss for i, loss in enumerate(benches[where].curve)}
            more = {"loss_60": round(benches[where].extra[0], 5), "acc_60": round(benches[where].extra[1], 4)}
            line = {name: getattr(job, name) for name in KEY} | more | curve
            append(args.out.with_name("curves.csv"), line, list(line))
            if averages := benches[where].averages:
                line = {name: getattr(job, name) for name in KEY} | averages
                append(args.out.with_name("averages.csv"), line, list(line))
        shown = ("task", "arm", "budget", "rate", "head", "c", "head_rate", "seed")
        print(
            time.strftime("%H:%M:%S"),
            *(row[name] for name in shown),
            *(row.get(f"{kind}_{at}") for at in (0, 10, 30, 100) for kind in ("loss", "acc")),
            row.get("train_s"),
            row["val_s"],
            row.get("error", ""),
            flush=True,
        )


if __name__ == "__main__":
    main()
