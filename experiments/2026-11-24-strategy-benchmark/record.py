"""Train every design of the table at two fidelities, a part of them with a second seed; append each to a CSV.

Usage: python record.py DATA TASK OUT.csv      (DATA/TASK holds train.jsonl and validation.jsonl; TASK: trec or sst2)

It can be stopped and started again: what is in the file is not trained again. The order is fixed and drawn, so that a
file that is cut short is a random part of the table, seed 0 at both fidelities first. Texts of at most 10 (trec) or 12
(sst2) words, the first 300 such validation examples, batches of 8, budget 0.2%, base rate 1e-2.
"""

from __future__ import annotations

import csv
import json
import random
import sys
import tempfile
import time
from pathlib import Path

import torch
from table_space import SPACE

from peftsearch.design.fitting import fit
from peftsearch.engine.job import Job
from peftsearch.engine.local import LocalEngine
from peftsearch.options import TaskOptions, TrainingOptions
from peftsearch.searcher.options import RunOptions
from peftsearch.searcher.prepare import prepare

WORDS = {"trec": 10, "sst2": 12}
FIDELITIES = (24, 60)
SECOND_SEED = 80  # designs that are trained with seed 1 too
COLUMNS = ("point", "steps", "seed", "score", "loss", "n_params", "train_s", "wall_s", "error")


def short(source: Path, target: Path, n_words: int, most: int | None) -> Path:
    """Keep the short texts of a JSONL file."""
    rows = [json.loads(line) for line in source.read_text().splitlines()]
    text = next(k for k, v in rows[0].items() if isinstance(v, str) and " " in v)
    kept = [row for row in rows if len(row[text].split()) <= n_words][:most]
    target.write_text("".join(json.dumps(row) + "\n" for row in kept))
    print(f"{source.parent.name}/{source.name}: {len(kept)} of {len(rows)}", flush=True)
    return target


def options(data: Path, task: str, folder: Path) -> RunOptions:
    """The settings of the benchmark on one task."""
    n_words = WORDS[task]
    train = short(data / task / "train.jsonl", folder / "train.jsonl", n_words, None)
    validation = short(data / task / "validation.jsonl", folder / "validation.jsonl", n_words, 300)
    return RunOptions(
        budget="0.2%",
        task=TaskOptions(train=train, validation=validation),
        training=TrainingOptions(batch_size=8, max_length=32),
    )


def jobs() -> list[tuple[int, int, int]]:
    """(point, steps, seed) in the order of training."""
    order = list(range(SPACE.n_designs))
    random.Random(0).shuffle(order)
    first = [(point, steps, 0) for point in order for steps in FIDELITIES]
    return first + [(point, steps, 1) for point in order[:SECOND_SEED] for steps in FIDELITIES]


def main(data: Path, task: str, out: Path) -> None:
    """Train what is missing."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        setup = prepare(options(data, task, Path(folder)))
    engine = LocalEngine(setup.loaded, setup.suite, setup.encoded, setup.training, setup.device, setup.autocast)
    done = set()
    if out.exists():
        with out.open() as file:
            done = {(int(r["point"]), int(r["steps"]), int(r["seed"])) for r in csv.DictReader(file)}
    else:
        out.write_text(",".join(COLUMNS) + "\n")
    points = SPACE.points()
    for point, steps, seed in jobs():
        if (point, steps, seed) in done:
            continue
        architecture = fit(SPACE.design(points[point]), setup.backbone, setup.budget)
        job = Job(architecture=architecture, learning_rate=1e-2, steps=steps, seed=seed)
        started = time.perf_counter()
        row: dict[str, object] = {"point": point, "steps": steps, "seed": seed, "n_params": architecture.n_params}
        try:
            outcome = engine.run(job)
            row |= {"score": outcome.score, "loss": round(outcome.loss, 5), "train_s": round(outcome.train_s, 3)}
        except Exception as error:  # recorded like a failed trial
            row["error"] = f"{type(error).__name__}: {error}"
        row["wall_s"] = round(time.perf_counter() - started, 3)
        with out.open("a", newline="") as file:
            csv.DictWriter(file, COLUMNS).writerow(row)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
