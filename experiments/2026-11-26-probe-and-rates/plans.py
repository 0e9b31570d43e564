"""Which trainings an experiment wants, given those that are made."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from bench import Job

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
