"""How steady the latency over the backbone's is, for three ways to make one figure of five rounds.

    python steadiness.py [--repeats N]

LoRA on MiniLM, merged: the forward pass is the backbone's own, so the true figure is 0.
"""

import argparse
import os
import time
from statistics import mean, median, stdev

import torch

from peftsearch.backbone.load import load_backbone
from peftsearch.design.budget import parse_budget
from peftsearch.design.design import Design
from peftsearch.design.fitting import fit
from peftsearch.engine.measure import ROUNDS, Meter
from peftsearch.injection.inject import inject
from peftsearch.injection.merging import merged
from peftsearch.tasks import load_embedded
from peftsearch.tasks.encoding.encode import encode

LORA = Design(grouping="uniform", allocation=(1.0,), methods=(("lora",),))
FIGURES = {
    "ratio of medians (in use)": lambda own, bare: median(own) / median(bare) - 1,
    "ratio of minima": lambda own, bare: min(own) / min(bare) - 1,
    "median of the rounds' ratios": lambda own, bare: median(a / b for a, b in zip(own, bare, strict=True)) - 1,
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=40)
    repeats = parser.parse_args().repeats
    loaded = load_backbone(None, num_labels=2)
    split = encode(load_embedded("sentiment", seed=0), loaded.tokenizer, 128).train
    architecture = fit(LORA, loaded.backbone, parse_budget("0.1%", loaded.backbone.n_params))
    meter = Meter(loaded.model, split, loss_of=torch.nn.functional.cross_entropy, batch_size=16,
                  device=torch.device("cpu"))  # fmt: skip
    inputs = {name: tensor[:1] for name, tensor in meter._batch.items() if name != "labels"}
    figures: dict[str, list[float]] = {name: [] for name in FIGURES}
    with inject(loaded.model, architecture, loaded.backbone):
        loaded.model.eval()
        for _ in range(repeats):
            own, bare = [], []
            for _ in range(ROUNDS[0]):
                bare.append(meter._time(meter._bare, inputs))
                with merged(loaded.model):
                    own.append(meter._time(loaded.model, inputs))
            for name, figure in FIGURES.items():
                figures[name].append(figure(own, bare))
            time.sleep(0.2)
    print(f"{repeats} repeats of {ROUNDS[0]} rounds, load average {os.getloadavg()[0]:.1f}")
    for name, values in figures.items():
        print(f"{name}: mean {100 * mean(values):+.1f}%, standard deviation {100 * stdev(values):.1f}%, "
              f"largest {100 * max(values):+.1f}%")  # fmt: skip


if __name__ == "__main__":
    main()
