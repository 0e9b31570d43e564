"""A task with its backbone, its probes and its arms, and one training."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn
from torch.nn import functional

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
from peftsearch.options import TaskOptions
from peftsearch.tasks import resolve_task
from peftsearch.tasks.encoding.batches import batches, eval_batches
from peftsearch.tasks.encoding.encode import encode

STEPS, LOOKS, EXTRA = 300, (30, 90, 300), 180
CPU = torch.device("cpu")
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

    def __init__(self, data: Path, name: str, precision: str, cache: Path | None = None) -> None:
        self.cache = cache
        folder = data / name
        if folder.is_dir():
            self.task = resolve_task(TaskOptions(train=folder / "train.jsonl", validation=folder / "validation.jsonl"))
        else:
            self.task = resolve_task(TaskOptions(name=name))
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
        if self.cache is None:
            return self._features(split, noisy)
        path = self.cache / f"{self.task.fingerprint}-{split}-{noisy}-{self.dtype}.npy"
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
