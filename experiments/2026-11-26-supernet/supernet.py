"""Train one supernet over sampled designs, and compare its losses with those of the recorded trainings.

supernet.py DATA TASK STEPS [SEED]

A store holds one tensor for each injected parameter, as large as the largest design needs; a design takes the leading
slice (nested ranks and widths). Every step samples a design, injects it with its slices, takes one AdamW step on them
(moments are sliced alike), and writes them back. Then every design is scored on the validation examples.
Result: Kendall's tau and Spearman's rho with the mean final loss of the recorded trainings (designs-TASK.csv).
"""

from __future__ import annotations

import csv
import random
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.stats import kendalltau, spearmanr
from torch import Tensor, nn
from torch.nn import functional

HERE = Path(__file__).parent
BENCHMARK = HERE.parent / "2026-11-26-hybrid-benchmark"
sys.path.insert(0, str(BENCHMARK))

from bench import BF16, CPU, Bench  # noqa: E402
from designs import drawn, fixed  # noqa: E402

from peftsearch.design.budget import parse_budget  # noqa: E402
from peftsearch.design.fitting import fit  # noqa: E402
from peftsearch.engine.loop import rate_factor  # noqa: E402
from peftsearch.engine.priming import needs_priming, prime  # noqa: E402
from peftsearch.engine.probe import put_head  # noqa: E402
from peftsearch.engine.settings import TrainingSettings  # noqa: E402
from peftsearch.injection.inject import inject, param_groups  # noqa: E402
from peftsearch.injection.modes import set_training  # noqa: E402
from peftsearch.tasks.encoding.batches import batches  # noqa: E402

BUDGET = "0.1%"


class Store:
    """The shared parameters, with AdamW's moments and the number of steps that each entry took."""

    def __init__(self) -> None:
        self.values: dict[str, list[Tensor]] = {}

    def read(self, name: str, own: Tensor) -> list[Tensor]:
        """Value, first and second moment, and step counts, in the shape of a design's parameter."""
        if name not in self.values:
            self.values[name] = [own.detach().clone(), *(torch.zeros_like(own) for _ in range(3))]
        kept = self.values[name]
        shape = [max(a, b) for a, b in zip(kept[0].shape, own.shape, strict=True)]
        if list(kept[0].shape) != shape:
            grown = [torch.zeros(shape) for _ in kept]
            grown[0][tuple(slice(n) for n in own.shape)] = own.detach()
            for new, old in zip(grown, kept, strict=True):
                new[tuple(slice(n) for n in old.shape)] = old
            self.values[name] = kept = grown
        return [tensor[tuple(slice(n) for n in own.shape)] for tensor in kept]


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that an injected model trains, by name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


@torch.no_grad()
def put(store: Store, model: nn.Module) -> None:
    """Give the injected parameters the store's values."""
    for name, p in trained(model).items():
        p.copy_(store.read(name, p)[0])


def step(store: Store, model: nn.Module, batch: dict[str, Tensor], factor: float, settings: TrainingSettings) -> float:
    """One step of AdamW on the slices of a design."""
    names = {id(p): name for name, p in trained(model).items()}
    set_training(model, dropout=False)
    labels = batch.pop("labels")
    with torch.autocast("cpu", dtype=BF16):
        logits = model(**batch).logits
    loss = functional.cross_entropy(logits.float(), labels)
    loss.backward()
    groups = param_groups(model, factor * settings.learning_rate, factor * settings.head_learning_rate)
    own = [p for group in groups for p in group["params"] if p.grad is not None]
    nn.utils.clip_grad_norm_(own, 1.0)
    with torch.no_grad():
        for group in groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                value, first, second, count = store.read(names[id(p)], p)
                count += 1
                first.mul_(0.9).add_(p.grad, alpha=0.1)
                second.mul_(0.999).addcmul_(p.grad, p.grad, value=0.001)
                mean, square = first / (1 - 0.9**count), second / (1 - 0.999**count)
                p.sub_(group["lr"] * mean / (square.sqrt() + 1e-8))
                value.copy_(p)
                p.grad = None
    return float(loss.detach())


def main(data: Path, task: str, n_steps: int, seed: int) -> None:
    """Train the supernet, score every design, and print the correlations."""
    bench, settings = Bench(data, task), TrainingSettings()
    designs = fixed() | drawn(bench.backbone, BUDGET)
    recorded = pd.read_csv(BENCHMARK / f"designs-{task}.csv")
    means = recorded.groupby("name")["loss_100"].agg(["mean", "count"])
    names = [name for name in designs if name in means.index and means.loc[name, "count"] >= 2]
    budget = parse_budget(BUDGET, bench.backbone.n_params)
    fitted = {name: fit(designs[name], bench.backbone, budget) for name in names}
    store, rng, started = Store(), random.Random(seed), time.process_time()
    put_head(bench.model, bench.head)
    order: list[str] = []
    for i, batch in enumerate(batches(bench.encoded.train, 16, seed=seed, steps=n_steps)):
        order = order or rng.sample(names, len(names))  # every design equally often
        name = order.pop()
        with inject(bench.model, fitted[name], bench.backbone, seed=seed):
            if needs_priming(bench.model):
                few = batches(bench.encoded.train, 16, seed=seed, steps=4)
                prime(bench.model, few, loss_of=functional.cross_entropy, device=CPU, autocast=BF16)
            put(store, bench.model)
            step(store, bench.model, batch, rate_factor(i, n_steps, settings.warmup_share), settings)
    train_s, rows = time.process_time() - started, []
    for name in names:
        with inject(bench.model, fitted[name], bench.backbone, seed=seed):
            put(store, bench.model)
            losses, hits = bench.losses()
        rows.append({"task": task, "steps": n_steps, "seed": seed, "name": name, "loss": float(losses.mean())})
        rows[-1] |= {"acc": float(hits.mean()), "recorded": float(means.loc[name, "mean"])}
    total = time.process_time() - started
    found, real = np.array([r["loss"] for r in rows]), np.array([r["recorded"] for r in rows])
    path = HERE / "scores.csv"
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        if file.tell() == 0:
            writer.writeheader()
        writer.writerows(rows)
    best = [names[i] for i in np.argsort(found)[:5]]
    print(
        f"{task}, {n_steps} steps, seed {seed}: {len(names)} designs, tau {kendalltau(found, real)[0]:.3f}, "
        f"rho {spearmanr(found, real)[0]:.3f}, training {train_s:.0f} s, all {total:.0f} s of CPU; its best "
        f"{best[0]} has regret {real[found.argmin()] - real.min():.4f}, the best of its five "
        f"{min(real[names.index(n)] for n in best) - real.min():.4f}",
        flush=True,
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]) if len(sys.argv) > 4 else 0)
