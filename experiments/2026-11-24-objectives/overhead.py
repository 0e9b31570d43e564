"""What measuring an architecture adds to a trial of MiniLM, and how steady the measured latencies are.

    python overhead.py [--repeats N]

A trial of the search (50 steps of 16, 500 validation sentences) runs with and without measuring, in turns and in
changing order. The share is the time inside `Meter.measure` over the rest of the same trial; CPU time is the steadier
where the machine does other work besides (set OMP_NUM_THREADS=1). Nothing is kept between trials, as if every
architecture were new.
"""

import argparse
import os
import time
from statistics import median

import torch

from peftsearch.backbone.device import hardware
from peftsearch.backbone.load import load_backbone
from peftsearch.design.baselines import S4_PAPER
from peftsearch.design.budget import parse_budget
from peftsearch.design.design import Design
from peftsearch.design.fitting import fit
from peftsearch.engine.job import Job
from peftsearch.engine.local import LocalEngine
from peftsearch.engine.settings import TrainingSettings
from peftsearch.tasks import load_embedded
from peftsearch.tasks.encoding.encode import encode
from peftsearch.tasks.suite import Suite

STEPS = 50
LORA = Design(grouping="uniform", allocation=(1.0,), methods=(("lora",),))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    task, loaded, cpu = load_embedded("sentiment", seed=0), load_backbone(None, num_labels=2), torch.device("cpu")
    encoded = encode(task, loaded.tokenizer, 128)
    started = time.perf_counter()
    engine = LocalEngine(loaded, Suite(tasks=(task,)), [encoded], TrainingSettings(), cpu, None)
    print(f"{hardware(cpu)}, {torch.get_num_threads()} threads, load average {os.getloadavg()[0]:.1f}")
    print(f"engine with its second set of modules: {time.perf_counter() - started:.3f} s")
    inside: list[tuple[float, float]] = []
    measure = engine._meter.measure

    def timed(*args):
        engine._meter._counts.clear()
        wall, cpu_s = time.perf_counter(), time.process_time()
        measures = measure(*args)
        inside.append((time.perf_counter() - wall, time.process_time() - cpu_s))
        return measures

    engine._meter.measure = timed
    budget = parse_budget("0.1%", loaded.backbone.n_params)
    for name, design in {"S4 paper's design": S4_PAPER, "LoRA": LORA}.items():
        job = Job(architecture=fit(design, loaded.backbone, budget), learning_rate=1e-2, steps=STEPS)
        report(name, *pairs(engine, job, repeats, inside))


def pairs(engine, job, repeats, inside):
    """Trials with and without measuring; seconds of each (wall, CPU), and the measures."""
    trials: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
    found, scores = [], set()
    inside.clear()
    for i in range(repeats):
        for measured in (True, False) if i % 2 else (False, True):
            wall, cpu = time.perf_counter(), time.process_time()
            outcome = engine.run(Job(architecture=job.architecture, learning_rate=job.learning_rate,
                                     steps=job.steps, measure=measured))  # fmt: skip
            trials[measured].append((time.perf_counter() - wall, time.process_time() - cpu))
            scores.add(outcome.score)
            if measured:
                found.append(outcome.measures)
    assert len(scores) == 1, scores
    return trials, list(inside), found


def report(name, trials, inside, found) -> None:
    print(f"\n{name}: {len(found)} pairs, load average {os.getloadavg()[0]:.1f}")
    for i, kind in enumerate(("wall", "CPU")):
        with_it, without = (median(t[i] for t in trials[m]) for m in (True, False))
        spent = median(t[i] for t in inside)
        share = median(t[i] / (whole[i] - t[i]) for t, whole in zip(inside, trials[True], strict=True))
        print(f"  {kind}: measuring {spent:.3f} s, {100 * share:.1f}% of the rest of its trial; "
              f"trial with it {with_it:.2f} s, without {without:.2f} s")  # fmt: skip
    for key in found[0]:
        values = [m[key] for m in found]
        print(f"  {key}: {min(values):.6g} to {max(values):.6g}")
    for key in ("latency_s", "merged_latency_s"):
        ratios = [m[key] / m["backbone_latency_s"] - 1 for m in found]
        print(f"  {key} over the backbone's: {100 * min(ratios):+.1f}% to {100 * max(ratios):+.1f}%")


if __name__ == "__main__":
    main()
