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
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from peftsearch.backbone.load import load_backbone, reset_head
from peftsearch.design.architecture import Architecture
from peftsearch.design.budget import parse_budget
from peftsearch.design.design import Design
from peftsearch.design.fitting import fit, smallest_budget
from peftsearch.engine.loop import train
from peftsearch.engine.settings import TrainingSettings
from peftsearch.errors import BudgetError, Diverged
from peftsearch.injection.inject import inject, param_groups
from peftsearch.methods import METHODS
from peftsearch.methods.lora import LoRA
from peftsearch.methods.projections import TARGETS
from peftsearch.tasks import resolve_task
from peftsearch.tasks.encoding.batches import batches, eval_batches
from peftsearch.tasks.encoding.encode import encode

STEPS, LOOKS, EXTRA = 300, (30, 90, 300), 180
CPU = torch.device("cpu")
CACHE: Path | None = None
METHODS["lora_ffn"] = LoRA(name="lora_ffn", targets=("ffn_in", "ffn_out"))
METHODS["lora_all"] = LoRA(name="lora_all", targets=TARGETS)

COLUMNS = [
    "part",
    "task",
    "arm",
    "budget",
    "n_params",
    "size",
    "rate",
    "head",
    "c",
    "head_rate",
    "seed",
    "precision",
    "loss_0",
    "acc_0",
    "loss_10",
    "acc_10",
    "loss_30",
    "acc_30",
    "loss_100",
    "acc_100",
    "head_norm",
    "train_loss",
    "train_s",
    "val_s",
    "error",
]
KEY = ("part", "task", "arm", "budget", "rate", "head", "c", "head_rate", "seed", "precision")


@dataclass(frozen=True, kw_only=True)
class Job:
    """One training."""

    part: str
    task: str
    arm: str
    """Methods joined by `+`, or `none`."""
    budget: str
    rate: str
    """Absolute peak rate of the first method; of the others of a mix by the ratio of `MIXED`."""
    head: str
    """`random`, `fold`, `layer`, `calm`, `still`, `random-still` or `noisy`; see `put_head`."""
    c: str
    head_rate: str
    """Absolute peak rate of the head; 0 freezes it."""
    seed: str = "0"
    precision: str = "bf16"

    @property
    def key(self) -> tuple[str, ...]:
        return tuple(getattr(self, name) for name in KEY)


# ---------------------------------------------------------------- tasks, features and probes


class Standardise(nn.Module):
    """Subtracts a mean and divides by a deviation; nothing in it is trained."""

    def __init__(self, mean: torch.Tensor, std: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x - self.mean) / self.std


class Bench:
    """A task with its backbone, its frozen features and its probes."""

    def __init__(self, data: Path, name: str, precision: str) -> None:
        folder = data / name
        if folder.is_dir():
            self.task = resolve_task(train=folder / "train.jsonl", validation=folder / "validation.jsonl")
        else:
            self.task = resolve_task(name)
        self.loaded = load_backbone(None, num_labels=self.task.num_labels)
        self.model, self.backbone = self.loaded.model, self.loaded.backbone
        self.encoded = encode(replace(self.task, test=None), self.loaded.tokenizer)
        self.dtype = torch.bfloat16 if precision == "bf16" else None
        if self.dtype is not None:
            self._keep_casts()
        self.plain, self.dropout = self.model.classifier, self.model.dropout
        self.rates_of_dropout = {m: m.p for m in self.model.modules() if isinstance(m, nn.Dropout)}
        self.labels = torch.tensor(self.encoded.validation.labels)
        self._starts: dict[tuple[object, ...], tuple[float, float]] = {}
        self._probes: dict[tuple[str, str], tuple[np.ndarray, np.ndarray]] = {}

    def _keep_casts(self) -> None:
        """Cast the frozen maps once; autocast casts them in every forward, and gives the same numbers."""
        for module in self.model.bert.encoder.modules():
            if isinstance(module, nn.Linear):
                weight, bias = module.weight.detach().to(self.dtype), module.bias.detach().to(self.dtype)
                module.forward = lambda x, w=weight, b=bias: functional.linear(x.to(self.dtype), w, b)

    def autocast(self) -> torch.autocast:
        return torch.autocast("cpu", dtype=self.dtype, enabled=self.dtype is not None)

    @cache  # noqa: B019
    def features(self, split: str, noisy: bool = False) -> np.ndarray:
        """As `_features`, kept in a file where a folder for it was given."""
        if CACHE is None:
            return self._features(split, noisy)
        path = CACHE / f"{self.task.fingerprint}-{split}-{noisy}-{self.dtype}.npy"
        if not path.exists():
            np.save(path, self._features(split, noisy))
        return np.load(path)

    def _features(self, split: str, noisy: bool) -> np.ndarray:
        """What the classifier reads, behind the frozen pooler, in the order of the examples.

        Args:
            split: `train` or `validation`.
            noisy: With the dropout of the blocks, as training sees them.
        """
        data = getattr(self.encoded, split)
        out = torch.zeros(len(data), self.model.config.hidden_size)
        self.model.train(noisy)
        torch.manual_seed(0)
        with torch.no_grad(), self.autocast():
            for indices, batch in eval_batches(data, 128):
                batch.pop("labels")
                out[indices] = self.model.bert(**batch).pooler_output.float()
        self.model.eval()
        return out.numpy()

    def moments(self) -> tuple[torch.Tensor, torch.Tensor]:
        x = torch.tensor(self.features("train"))
        return x.mean(0), x.std(0).clamp_min(1e-6)

    def probe(self, kind: str, c: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Weight and bias on standardised features; `noisy` is fitted on features with dropout."""
        if (kind, c) not in self._probes:
            mean, std = (m.numpy() for m in self.moments())
            x = (self.features("train", kind == "noisy") - mean) / std
            y = np.array(self.encoded.train.labels)
            model = LogisticRegression(C=float(c), max_iter=2000).fit(x, y)
            weight, bias = model.coef_, model.intercept_
            if len(weight) == 1:  # two classes: one row
                weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
            self._probes[kind, c] = weight, bias
        weight, bias = self._probes[kind, c]
        return torch.tensor(weight, dtype=torch.float32), torch.tensor(bias, dtype=torch.float32)

    # ------------------------------------------------------------ the head

    def dress(self, head: str) -> None:
        """Change what stands around the classifier, before injection."""
        mean, std = self.moments() if head == "layer" else (None, None)
        self.model.classifier, self.model.dropout = self.plain, self.dropout
        if head == "layer":
            self.model.dropout = nn.Sequential(Standardise(mean, std), nn.Dropout(self.dropout.p))
        elif head == "calm":
            self.model.dropout = nn.Dropout(0.0)
        for module, p in self.rates_of_dropout.items():
            module.p = 0.0 if head.endswith("still") else p

    @torch.no_grad()
    def put_head(self, head: str, c: str, seed: int) -> None:
        """Set the classifier.

        `random`: as `reset_head` draws it. `fold`: the probe, the standardising folded in. `layer`: the probe behind a
        fixed standardising layer, which stands before the dropout. `calm`: as `fold`, without the dropout before the
        classifier. `still`: as `fold`, without any dropout. `random-still`: as
        `random`, without any dropout. `noisy`: as `fold`, fitted on features with the dropout of
        the blocks.
        """
        reset_head(self.model, self.backbone, seed)
        if head.startswith("random"):
            return
        weight, bias = self.probe(head, c) if head == "noisy" else self.probe("clean", c)
        if head != "layer":
            mean, std = self.moments()
            weight = weight / std
            bias = bias - weight @ mean
        self.plain.weight.copy_(weight)
        self.plain.bias.copy_(bias)

    # ------------------------------------------------------------ scores and training

    @torch.no_grad()
    def validate(self) -> tuple[float, float]:
        """Loss and accuracy on the validation split."""
        self.model.eval()
        logits = torch.zeros(len(self.labels), self.task.num_labels)
        for indices, batch in eval_batches(self.encoded.validation, 128):
            batch.pop("labels")
            with self.autocast():
                logits[indices] = self.model(**batch).logits.float()
        if not bool(torch.isfinite(logits).all()):
            return math.inf, 0.0
        loss = float(functional.cross_entropy(logits, self.labels))
        return loss, float((logits.argmax(-1) == self.labels).float().mean())

    def run(self, job: Job) -> dict[str, object]:
        """One training, as a row."""
        architecture = make(job.arm, job.budget, self.backbone)
        seed, rate, head_rate = int(job.seed), float(job.rate), float(job.head_rate)
        row: dict[str, object] = {name: getattr(job, name) for name in KEY}
        row["n_params"] = architecture.n_params
        row["size"] = "/".join(map(str, sorted({p.size for p in architecture.placements})))
        val_s = 0.0
        self.dress(job.head)
        try:
            with inject(self.model, architecture, self.backbone, seed=seed):
                self.put_head(job.head, job.c, seed)
                row["head_norm"] = round(float(self.plain.weight.detach().norm()), 2)
                groups = [g for g in self._groups(job, rate, head_rate) if g["lr"] > 0]
                torch.manual_seed(seed)
                steps = train(
                    self.model,
                    groups,
                    batches(self.encoded.train, 16, seed=seed, steps=STEPS),
                    n_steps=STEPS,
                    settings=TrainingSettings(),
                    loss_of=functional.cross_entropy,
                    device=CPU,
                    autocast=self.dtype,
                )
                looks = {0: self._start(job)}
                trained, val = [p for group in groups for p in group["params"]], {}
                self.averages = val
                try:
                    while True:
                        step = next(steps)
                        if job.part == "rates" and job.seed == "1":
                            self._average(step, trained, val)
                        if step in LOOKS or step == EXTRA:
                            started = time.process_time()
                            looks[step] = self.validate()
                            val_s += time.process_time() - started
                except StopIteration as end:
                    log = end.value
                    row["train_loss"] = round(float(np.mean(log.losses[-30:])), 4)
                    row["train_s"] = round(log.train_s, 2)
                    self.curve = [round(float(np.mean(log.losses[i : i + 30])), 4) for i in range(0, STEPS, 30)]
                    self.extra = looks[EXTRA]
        except Diverged as error:
            row["error"] = str(error)
            looks = {}
        finally:
            self.dress("random")
        for step, name in zip((0, *LOOKS), ("0", "10", "30", "100"), strict=True):
            if step in looks:
                row[f"loss_{name}"], row[f"acc_{name}"] = round(looks[step][0], 5), round(looks[step][1], 4)
        row["val_s"] = round(val_s, 2)
        return row

    @torch.no_grad()
    def _average(self, step: int, trained: list[torch.Tensor], found: dict[str, float]) -> None:
        """At 10 % and at 30 %: the validation of the mean of the weights over the last third of the steps so far."""
        for name, last in (("10", LOOKS[0]), ("30", LOOKS[1])):
            first = last - last // 3
            if step == first:
                self._sums = [torch.zeros_like(p) for p in trained]
            if first < step <= last:
                for total, p in zip(self._sums, trained, strict=True):
                    total += p
            if step == last:
                own = [p.clone() for p in trained]
                for p, total in zip(trained, self._sums, strict=True):
                    p.copy_(total / (last // 3))
                loss, accuracy = self.validate()
                found |= {f"mean_loss_{name}": round(loss, 5), f"mean_acc_{name}": round(accuracy, 4)}
                for p, value in zip(trained, own, strict=True):
                    p.copy_(value)

    def _start(self, job: Job) -> tuple[float, float]:
        """Loss and accuracy before the first step; computed once a head where no method changes them at its start."""
        key = (job.head, job.c, job.seed if job.head.startswith("random") else "", "prefix" in job.arm and job)
        if key not in self._starts:
            self._starts[key] = self.validate()
        return self._starts[key]

    def _groups(self, job: Job, rate: float, head_rate: float) -> list[dict[str, object]]:
        groups = param_groups(self.model, 1.0)
        first = job.arm.split("+")[0]
        for group in groups:
            if group["name"] == "head":
                group["lr"] = head_rate
            else:
                group["lr"] = rate * MIXED.get(group["name"], 1.0) / MIXED.get(first, 1.0)
        return groups


MIXED: dict[str, float] = {}
"""Rates of the methods of a mix against each other, as experiment B found them."""


def make(arm: str, budget: str, backbone: object) -> Architecture:
    """An arm of uniform groups at a budget, or at its smallest size where that exceeds the budget."""
    if arm == "none":
        return Architecture(placements=())
    names = tuple(arm.split("+"))
    design = Design(grouping="uniform", allocation=(1.0,) * 4, methods=(names,) * 4)
    limit = parse_budget(budget, backbone.n_params)
    try:
        return fit(design, backbone, limit)
    except BudgetError:
        return fit(design, backbone, parse_budget(str(smallest_budget(design, backbone)), backbone.n_params))


# ---------------------------------------------------------------- plans

HEAD = {"head": "fold", "c": "0.01", "head_rate": "1e-3"}
"""The head of experiment B, as A decided it."""


def plan_heads(_: list[dict[str, str]]) -> Iterator[Job]:
    """Experiment A: all heads with LoRA, some with IA3, with another rate and on further tasks."""
    heads = (
        ("still", "0.01", "1e-3"),
        ("fold", "0.01", "1e-3"),
        ("fold", "0.001", "1e-3"),
        ("random", "-", "1e-2"),
        ("fold", "0.01", "1e-2"),
        ("fold", "0.1", "1e-2"),
        ("calm", "0.01", "1e-3"),
        ("fold", "0.01", "0"),
        ("fold", "0.1", "1e-3"),
        ("layer", "0.01", "1e-4"),
    )
    for head, c, head_rate in heads[:9]:
        for task in ("trec", "sst5"):
            yield _head_job(task, "lora", "3e-3", head, c, head_rate)
    for task in ("trec", "sst5"):
        for head, c, head_rate in heads[1:4]:
            yield replace(_head_job(task, "lora", "3e-3", head, c, head_rate), seed="1")
    for task in ("cr", "entailment"):
        for head, c, head_rate in (*heads[1:4], heads[5]):
            yield _head_job(task, "lora", "3e-3", head, c, head_rate)
    for head, c, head_rate in (heads[3], heads[2]):
        for task in ("trec", "sst5"):
            yield _head_job(task, "lora", "1e-2", head, c, head_rate)
    for task in ("trec", "sst5"):
        yield _head_job(task, "lora", "3e-3", *heads[9])
    for head, c, head_rate in heads[:4]:
        for task in ("trec", "sst5"):
            yield _head_job(task, "ia3", "1e-2", head, c, head_rate)


def _head_job(task: str, arm: str, rate: str, head: str, c: str, head_rate: str) -> Job:
    return Job(part="heads", task=task, arm=arm, budget="0.1%", rate=rate, head=head, c=c, head_rate=head_rate)


RATES = ("1e-4", "3e-4", "1e-3", "3e-3", "1e-2", "3e-2", "1e-1", "3e-1", "1e0")
ARMS = {
    ("lora", "0.1%"): "1e-2",
    ("ia3", "0.1%"): "1e-2",
    ("adapter", "0.1%"): "3e-3",
    ("krona", "0.1%"): "1e-2",
    ("lora_ffn", "0.1%"): "3e-3",
    ("bitfit", "0.5%"): "3e-3",
    ("layernorm", "0.1%"): "3e-3",
    ("adapter_parallel", "0.1%"): "1e-3",
    ("prefix", "0.1%"): "3e-2",
    ("lora", "0.5%"): "3e-3",
    ("lora_all", "0.5%"): "3e-3",
}
"""Arms and budgets, with the rate that is tried first."""
LATER = {
    ("adapter", "0.5%"): "3e-3",
    ("krona", "0.5%"): "1e-2",
    ("lora_ffn", "0.5%"): "3e-3",
    ("adapter_parallel", "0.5%"): "1e-3",
    ("prefix", "0.5%"): "3e-2",
}


def plan_rates(rows: list[dict[str, str]]) -> Iterator[Job]:
    """Experiment B: climb to the best rate of every arm, then a second seed and further tasks around it."""
    for (arm, budget), first in ARMS.items():
        small = _ranked(rows, arm, "0.1%", ("trec", "sst5"))
        yield from _climb(rows, arm, budget, small[0] if budget == "0.5%" and small else first)
    ranked = {where: _ranked(rows, *where, ("trec", "sst5")) for where in ARMS}
    yield from _again(ranked, 0, "1", ("trec", "sst5"))
    for (arm, budget), first in LATER.items():
        small = _ranked(rows, arm, "0.1%", ("trec", "sst5"))
        yield from _climb(rows, arm, budget, small[0] if small else first)
    yield from _again(ranked, 0, "0", ("cr", "entailment"))
    yield from _again(ranked, 1, "1", ("trec", "sst5"))
    yield from _again(ranked, 1, "0", ("cr", "entailment"))


def _again(ranked: dict[tuple[str, str], list[str]], place: int, seed: str, tasks: tuple[str, ...]) -> Iterator[Job]:
    for task in tasks:
        for (arm, budget), rates in ranked.items():
            if place < len(rates):
                yield _job(task, arm, budget, rates[place], seed)


def _job(task: str, arm: str, budget: str, rate: str, seed: str = "0") -> Job:
    return Job(part="rates", task=task, arm=arm, budget=budget, rate=rate, seed=seed, **HEAD)


def _losses(rows: list[dict[str, str]], arm: str, budget: str, tasks: tuple[str, ...]) -> dict[str, float]:
    """Mean final loss of seed 0 over the tasks, by rate, where all of them are there."""
    found: dict[str, dict[str, float]] = {}
    for row in rows:
        if (row["part"], row["arm"], row["budget"], row["seed"]) == ("rates", arm, budget, "0"):
            found.setdefault(row["rate"], {})[row["task"]] = float(row["loss_100"] or "inf")
    return {rate: sum(by[t] for t in tasks) / len(tasks) for rate, by in found.items() if set(tasks) <= set(by)}


def _ranked(rows: list[dict[str, str]], arm: str, budget: str, tasks: tuple[str, ...]) -> list[str]:
    losses = _losses(rows, arm, budget, tasks)
    return sorted(losses, key=lambda rate: losses[rate])


def _climb(rows: list[dict[str, str]], arm: str, budget: str, first: str) -> Iterator[Job]:
    """Rates until the best one has a worse neighbour on either side.

    A neighbour that is worse than the best by `HOPELESS` on the first task is not trained on the second.
    """
    losses = _losses(rows, arm, budget, ("trec", "sst5"))
    screened = _losses(rows, arm, budget, ("trec",))
    best = RATES.index(min(losses, key=lambda rate: losses[rate])) if losses else RATES.index(first)
    for place in (best, best + 1, best - 1):
        if 0 <= place < len(RATES):
            rate = RATES[place]
            if (arm, budget, rate) in LEFT_OUT:
                continue
            yield _job("trec", arm, budget, rate)
            if screened.get(rate, 0.0) < screened.get(RATES[best], 1e9) + HOPELESS:
                yield _job("sst5", arm, budget, rate)


HOPELESS = 0.04
LEFT_OUT = {("lora_all", "0.5%", "1e-3")}
"""Not trained, for time."""


def plan_check(_: list[dict[str, str]]) -> Iterator[Job]:
    """Float32 against bfloat16."""
    for precision in ("bf16", "fp32"):
        for arm, rate in (("lora", "1e-2"), ("ia3", "1e-2")):
            for task in ("trec", "sst5"):
                yield Job(
                    part="check",
                    task=task,
                    arm=arm,
                    budget="0.1%",
                    rate=rate,
                    head="fold",
                    c="0.01",
                    head_rate="1e-3",
                    precision=precision,
                )


PLANS = {"heads": plan_heads, "rates": plan_rates, "check": plan_check}


def read(out: Path) -> list[dict[str, str]]:
    if not out.exists():
        return []
    with out.open() as file:
        return list(csv.DictReader(file))


def append(out: Path, row: dict[str, object], columns: list[str]) -> None:
    new = not out.exists()
    with out.open("a", newline="") as file:
        writer = csv.DictWriter(file, columns)
        if new:
            writer.writeheader()
        writer.writerow(row)


def probes(data: Path, out: Path) -> None:
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
        bench = Bench(data, name, "bf16")
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
    global CACHE
    CACHE = args.cache
    if CACHE is not None:
        CACHE.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    if args.part == "probes":
        probes(args.data, args.out)
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
            benches[where] = Bench(args.data, *where)
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
