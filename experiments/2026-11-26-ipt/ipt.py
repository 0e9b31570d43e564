"""Tune prompts in a learned subspace beside other trainings, on tasks that are not among its sources.

`python ipt.py DATA [FOLDER]` writes sources.csv, variance.csv, rates.csv and runs.csv; DATA holds sst2/, cr/ and trec/
(train.jsonl, validation.jsonl), FOLDER keeps the subspaces. Lines that are there are not trained again.
`python ipt.py --summary` prints the table.
"""

import csv
import sys
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from tempfile import TemporaryDirectory

import torch
from safetensors.torch import load, load_file, save_file

from peftsearch.backbone.subspace import Directions, principal_directions, with_subspace, write_subspace
from peftsearch.design.architecture import Architecture, Placement
from peftsearch.engine.inputs import encode_task, load_model, settle_length
from peftsearch.engine.job import Job
from peftsearch.engine.local import LocalEngine
from peftsearch.engine.settings import TrainingSettings
from peftsearch.options import ModelOptions, TaskOptions
from peftsearch.tasks import resolve_task
from peftsearch.tasks.suite import Suite

HERE = Path(__file__).parent
LENGTH, D = 8, 8
SOURCE_EXAMPLES, SOURCE_STEPS, EXAMPLES, STEPS = 500, 120, 300, 100
SOURCE_SEEDS, SEEDS = range(3), range(3)
TASKS = ("sentiment", "sst2", "cr", "trec")
"""Sources; each of TARGETS is tuned in the subspace of the three others."""
TARGETS = ("sentiment", "trec")
FACTORS = (0.25, 1.0, 4.0)
"""Multiples of the method's rate that are tried on a source task with data of its own."""


class Bench:
    """The model and the data of one task."""

    def __init__(self, data, name, seed, n_train=EXAMPLES):
        files = {split: data / name / f"{split}.jsonl" for split in ("train", "validation")}
        options = TaskOptions(name=name) if name == "sentiment" else TaskOptions(**files)
        task = resolve_task(replace(options, max_train=n_train), seed)
        self.task = replace(task, validation=part(task.validation))
        self.loaded = load_model(ModelOptions(), self.task.kind, self.task.num_labels)
        self.training, _ = settle_length(TrainingSettings(), "auto", self.loaded, [self.task])
        self.data = encode_task(self.loaded, self.task, self.training.max_length, None)
        self.heads = None

    def run(self, method=None, size=0, subspace=None, factor=1.0, seed=0, steps=STEPS):
        """Train a method of a size (None trains the head alone); returns the outcome and the number of parameters."""
        backbone = self.loaded.backbone if subspace is None else with_subspace(self.loaded.backbone, subspace)
        n = {None: 0, "prompt": size * 384, "ipt": size}[method]
        first = Placement(stack="encoder", block=0, method=str(method), size=size, n_params=n)
        architecture = Architecture(placements=() if method is None else (first,))
        engine = LocalEngine(
            replace(self.loaded, backbone=backbone), Suite(tasks=(self.data.task,)), [self.data], self.training,
            torch.device("cpu"), None, self.heads,
        )  # fmt: skip
        self.heads = engine.fit_heads()
        job = Job(
            architecture=architecture, learning_rate=factor * self.training.learning_rate, steps=steps, seed=seed,
            keep_state=True, measure=False,
        )  # fmt: skip
        return engine.run(job), n


def add(path, row):
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, row)
        writer.writeheader() if new else None
        writer.writerow(row)
    print(*row.values(), flush=True)


def rows(path):
    return list(csv.DictReader(path.open())) if path.exists() else []


def random_directions(like, seed):
    """A subspace with the same mean and scales, and random orthonormal directions."""
    size = like.mean.numel()
    q, _ = torch.linalg.qr(torch.randn(size, D, generator=torch.Generator().manual_seed(seed)))
    return Directions(mean=like.mean, basis=q.T.reshape(D, *like.mean.shape).contiguous(), scale=like.scale[:D])


def part(split, most=500):
    """The first 500 examples."""
    return replace(split, texts=split.texts[:most], labels=split.labels[:most])


def prompts(data, folder):
    """The source prompts, trained once."""
    path = folder / "prompts.safetensors"
    found = load_file(path) if path.exists() else {}
    for seed in SOURCE_SEEDS:
        for name in TASKS:
            key = f"{name} {seed}"
            if key not in found:
                outcome, _ = Bench(data, name, seed, SOURCE_EXAMPLES).run("prompt", LENGTH, steps=SOURCE_STEPS)
                values = load(outcome.states[0])
                found[key] = next(v for k, v in values.items() if k.endswith("_prompt.embedding"))
                save_file(found, path)
                add(HERE / "sources.csv", {"source": key, "accuracy": outcome.score, "loss": round(outcome.loss, 4)})
    return found


def main(data, folder):
    known = prompts(data, folder)
    backbone = load_model(ModelOptions(), None, 2).backbone
    for name in TARGETS:
        used = [key for key in known if key.split()[0] != name]
        learned = principal_directions(torch.stack([known[key] for key in used]))
        write_subspace(folder / f"without-{name}.safetensors", learned, backbone, used)
        for seed in SEEDS:
            drawn = random_directions(learned, seed)
            write_subspace(folder / f"random-{name}-{seed}.safetensors", drawn, backbone, [])
        shares = learned.scale**2 / (learned.scale**2).sum()
        row = {"target": name} | {f"direction {i + 1}": round(float(share), 4) for i, share in enumerate(shares)}
        add(HERE / "variance.csv", row)
    if not rows(HERE / "rates.csv"):
        bench = Bench(data, "sst2", 50)
        for arm, file in (("ipt", "without-sentiment"), ("random", "random-sentiment-0")):
            for factor in FACTORS:
                outcome, _ = bench.run("ipt", D, folder / f"{file}.safetensors", factor)
                add(HERE / "rates.csv", {"arm": arm, "factor": factor, "loss": outcome.loss, "accuracy": outcome.score})
    rates = rows(HERE / "rates.csv")
    best = {a: min((r for r in rates if r["arm"] == a), key=lambda r: float(r["loss"])) for a in ("ipt", "random")}
    factor = {arm: float(row["factor"]) for arm, row in best.items()}
    done = {(r["task"], r["arm"], r["seed"]) for r in rows(HERE / "runs.csv")}
    frozen = "mean prompt, frozen"
    for name, seed, last in [(name, seed, last) for last in (False, True) for seed in SEEDS for name in TARGETS]:
        learned, drawn = folder / f"without-{name}.safetensors", folder / f"random-{name}-{seed}.safetensors"
        arms = {
            "head alone": {},
            "ipt": {"method": "ipt", "size": D, "subspace": learned, "factor": factor["ipt"]},
            "random subspace": {"method": "ipt", "size": D, "subspace": drawn, "factor": factor["random"]},
            "prompt": {"method": "prompt", "size": LENGTH},
        }
        if last:
            arms = {frozen: {"method": "ipt", "size": 1, "subspace": learned, "factor": 1e-9}}
        left = {arm: how for arm, how in arms.items() if (name, arm, str(seed)) not in done}
        bench = Bench(data, name, 100 + seed) if left else None
        for arm, how in left.items():
            outcome, n_params = bench.run(**how, seed=seed)
            add(
                HERE / "runs.csv",
                {"task": name, "arm": arm, "seed": seed, "trained": 0 if arm == frozen else n_params,
                 "accuracy": outcome.score, "loss": round(outcome.loss, 4), "train_s": round(outcome.train_s, 1)},
            )  # fmt: skip


def summary():
    found = {}
    for row in rows(HERE / "runs.csv"):
        found.setdefault((row["task"], row["arm"]), []).append((float(row["accuracy"]), float(row["loss"])))
    for (task, arm), values in found.items():
        n = len(values)
        told = [f"{mean(v):.4f} ± {stdev(v) / n**0.5:.4f}" for v in zip(*values, strict=True)] if n > 1 else values
        print(f"| {task} | {arm} | {' | '.join(map(str, told))} | {n} |")


if __name__ == "__main__":
    torch.set_num_threads(1)
    if "--summary" in sys.argv:
        summary()
    elif len(sys.argv) > 2:
        main(Path(sys.argv[1]), Path(sys.argv[2]))
    else:
        with TemporaryDirectory() as place:
            main(Path(sys.argv[1]), Path(place))
