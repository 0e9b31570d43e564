"""Ten runs with `--time`, of different size: what was asked, what was taken, and the verdicts (timed.csv).

timed.py DATA [NAME ...]

DATA holds cr, sst2 and trec; the other tasks are embedded. Run it with nothing beside it.
"""

from __future__ import annotations

import csv
import subprocess
import sys
import time
from pathlib import Path

import yaml

HERE = Path(__file__).parent
COLUMNS = ["name", "asked_s", "taken_s", "steps", "verdict", "pick", "statement"]


def files(data: Path, task: str) -> list[str]:
    """Options for a task of files."""
    return [w for split in ("train", "validation", "test") for w in (f"--{split}", str(data / task / f"{split}.jsonl"))]


def jobs(data: Path) -> dict[str, tuple[float, list[str]]]:
    """Seconds and options by name."""
    found = {f"readme-{s}": (210.0, ["--budget", "0.1%", "--time", "3m30s", "--seed", str(s)]) for s in range(5)}
    return found | {
        "cr": (120.0, [*files(data, "cr"), "--budget", "0.1%", "--time", "2m"]),
        "entailment": (90.0, ["--task", "entailment", "--budget", "0.1%", "--time", "90s"]),
        "acceptability": (300.0, ["--task", "acceptability", "--budget", "0.1%", "--time", "5m"]),
        "sst2": (240.0, [*files(data, "sst2"), "--budget", "0.03%", "--time", "4m"]),
        "trec": (360.0, [*files(data, "trec"), "--budget", "0.5%", "--time", "6m"]),
    }


def main(data: Path, names: list[str]) -> None:
    """Make the runs that are asked for, or all."""
    for name, (asked, words) in jobs(data).items():
        if names and name not in names:
            continue
        started = time.monotonic()
        command = [sys.executable, "-m", "peftsearch", "run", *words, "--runs", str(HERE / "runs"), "--name", name]
        with (HERE / f"{name}.log").open("w") as log:
            subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=True)
        taken = time.monotonic() - started
        best = yaml.safe_load((HERE / "runs" / name / "best.yaml").read_text())
        verdict = best["verdict"]
        row = [name, asked, round(taken, 1), best["training"]["steps"], verdict["kind"], best["name"]]
        with (HERE / "timed.csv").open("a", newline="") as file:
            writer = csv.writer(file)
            if file.tell() == 0:
                writer.writerow(COLUMNS)
            writer.writerow([*row, verdict["statement"]])


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
