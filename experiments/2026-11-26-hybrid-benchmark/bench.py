"""A task with its backbone and its probed head, and one training of a design with looks at 10, 30 and 100 %."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from peftsearch.backbone.load import load_backbone
from peftsearch.design.budget import parse_budget
from peftsearch.design.design import Design
from peftsearch.design.fitting import fit
from peftsearch.engine.loop import train
from peftsearch.engine.priming import needs_priming, prime
from peftsearch.engine.probe import fit_head, put_head
from peftsearch.engine.scoring import Scorer
from peftsearch.engine.settings import TrainingSettings
from peftsearch.errors import Diverged
from peftsearch.injection.inject import inject, param_groups
from peftsearch.options import TaskOptions
from peftsearch.tasks import resolve_task
from peftsearch.tasks.encoding.batches import batches, eval_batches
from peftsearch.tasks.encoding.encode import encode

STEPS, LOOKS = 300, (0.1, 0.3, 1.0)
CPU, BF16 = torch.device("cpu"), torch.bfloat16
RATES = {
    "lora": 5e-3,
    "lora:attention": 3.5e-3,
    "lora:ffn": 7e-3,
    "lora:all": 3e-3,
    "lora_shared_a": 5e-3,
    "lora_shared_a:ffn": 7e-3,
    "lora_shared_a:all": 3e-3,
    "ia3": 2.5e-2,
    "ia3:all": 2e-2,
    "bitfit": 5e-3,
    "layernorm": 7.5e-3,
    "adapter": 7e-3,
    "adapter_parallel": 2.5e-3,
    "prefix": 1e-1,
    "krona": 1e-2,
}
"""Absolute peak rates that the plan `rates` multiplies; all other plans take the package's own."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One training."""

    task: str
    name: str
    design: Design
    budget: str
    factor: float = 1.0
    """Factor on the base rate; in the plan `rates` on `RATES`."""
    by_table: bool = False
    """Whether the rate is that of `RATES`."""
    seed: int = 0
    steps: int = STEPS

    @property
    def key(self) -> tuple[str, ...]:
        """What tells this row from others."""
        return self.task, self.name, self.budget, f"{self.factor:g}", str(self.seed)


class Bench:
    """A task with its backbone, and its head fitted on the frozen features."""

    def __init__(self, data: Path, name: str) -> None:
        folder = data / name
        if folder.is_dir():
            self.task = resolve_task(TaskOptions(train=folder / "train.jsonl", validation=folder / "validation.jsonl"))
        else:
            self.task = resolve_task(TaskOptions(name=name))
        self.loaded = load_backbone(None, num_labels=self.task.num_labels)
        self.model, self.backbone = self.loaded.model, self.loaded.backbone
        self.encoded = encode(replace(self.task, test=None), self.loaded.tokenizer)
        self._keep_casts()
        self.labels = torch.tensor(self.encoded.validation.labels)
        head = fit_head(self.loaded, Scorer(self.task), self.encoded.train, batch_size=128, device=CPU, autocast=BF16)
        assert head is not None, "the model has a head"
        self.head = head

    def _keep_casts(self) -> None:
        """Cast the frozen maps once; autocast casts them in every forward, and gives the same numbers."""
        for module in self.model.bert.encoder.modules():
            if isinstance(module, torch.nn.Linear):
                weight, bias = module.weight.detach().to(BF16), module.bias.detach().to(BF16)
                module.forward = lambda x, w=weight, b=bias: functional.linear(x.to(BF16), w, b)

    @torch.no_grad()
    def losses(self) -> tuple[np.ndarray, np.ndarray]:
        """Loss and hit of every validation example."""
        self.model.eval()
        logits = torch.zeros(len(self.labels), self.task.num_labels)
        for indices, batch in eval_batches(self.encoded.validation, 128):
            batch.pop("labels")
            with torch.autocast("cpu", dtype=BF16):
                logits[indices] = self.model(**batch).logits.float()
        logits = logits.nan_to_num(nan=1e4)
        each = functional.cross_entropy(logits, self.labels, reduction="none")
        return each.numpy(), (logits.argmax(-1) == self.labels).numpy()

    def run(self, job: Job) -> tuple[dict[str, object], dict[str, np.ndarray]]:
        """One training: a row, and the loss of every validation example at every look."""
        architecture = fit(job.design, self.backbone, parse_budget(job.budget, self.backbone.n_params))
        row: dict[str, object] = dict(zip(("task", "name", "budget", "factor", "seed"), job.key, strict=True))
        row |= {"n_params": architecture.n_params, "blocks": len({p.block for p in architecture.placements})}
        looks: dict[str, np.ndarray] = {}
        started = time.process_time()
        try:
            with inject(self.model, architecture, self.backbone, seed=job.seed):
                self._train(job, row, looks)
        except Diverged as error:
            row["error"] = str(error)
        row["cpu_s"] = round(time.process_time() - started, 1)
        return row, looks

    def _train(self, job: Job, row: dict[str, object], looks: dict[str, np.ndarray]) -> None:
        put_head(self.model, self.head)
        settings = TrainingSettings()
        groups = param_groups(self.model, job.factor * settings.learning_rate, settings.head_learning_rate)
        if job.by_table:
            for group in groups:
                group["lr"] = group["lr"] if group["name"] == "head" else job.factor * RATES[group["name"]]
        if needs_priming(self.model):
            few = batches(self.encoded.train, 16, seed=job.seed, steps=job.steps)
            prime(self.model, few, loss_of=functional.cross_entropy, device=CPU, autocast=BF16)
        trained = [p for group in groups for p in group["params"]]
        steps = train(
            self.model,
            groups,
            batches(self.encoded.train, 16, seed=job.seed, steps=job.steps),
            n_steps=job.steps,
            settings=settings,
            loss_of=functional.cross_entropy,
            device=CPU,
            autocast=BF16,
            seed=job.seed,
        )
        sums = [torch.zeros_like(p) for p in trained]
        looks_at = [round(share * job.steps) for share in LOOKS]
        for step in steps:
            for name, last in zip(("10", "30", "100"), looks_at, strict=True):
                if step == last - last // 3:
                    sums = [torch.zeros_like(p) for p in trained]
                if last - last // 3 < step <= last:
                    with torch.no_grad():
                        for total, p in zip(sums, trained, strict=True):
                            total += p
                if step == last:
                    self._look(name, row, looks)
                    if last < job.steps:
                        self._look_at_mean(name, [s / (last // 3) for s in sums], trained, row, looks)

    def _look(self, name: str, row: dict[str, object], looks: dict[str, np.ndarray]) -> None:
        each, hits = self.losses()
        row[f"loss_{name}"], row[f"acc_{name}"] = round(float(each.mean()), 5), round(float(hits.mean()), 5)
        looks[name] = each.astype(np.float16)
        if name == "100":
            looks["hits"] = hits

    @torch.no_grad()
    def _look_at_mean(
        self,
        name: str,
        means: list[torch.Tensor],
        trained: list[torch.Tensor],
        row: dict[str, object],
        looks: dict[str, np.ndarray],
    ) -> None:
        """The look with the mean of the weights over the last third of the steps so far in place of the weights."""
        own = [p.clone() for p in trained]
        for p, mean in zip(trained, means, strict=True):
            p.copy_(mean)
        self._look(f"mean_{name}", row, looks)
        for p, value in zip(trained, own, strict=True):
            p.copy_(value)
