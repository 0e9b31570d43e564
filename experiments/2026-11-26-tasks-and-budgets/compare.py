"""One row of the table: the default run on a task and budget, the strategy s4, and the loop by hand, at equal steps.

compare.py DATA TASK BUDGET [--options "..."] [--only race s4 hand] [--runs FOLDER]

A finished part is not made again. `rows.jsonl` gets one line for each part; `table.py` prints them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import yaml

from peftsearch.options import TaskOptions
from peftsearch.tasks import resolve_task

HERE = Path(__file__).parent
ROWS = HERE / "rows.jsonl"


def steps_of(run: Path) -> int:
    """Optimizer steps that a run took, each paid once."""
    trials = pd.read_csv(run / "trials.csv")
    done = trials[trials["steps"].notna() & trials["reused_from"].isna()]
    return int((done["steps"] - done["first"].fillna(0)).sum())


def folder_of(data: Path, task: str, runs: Path) -> Path:
    """The files of a task; those of an embedded one are written."""
    if (data / task).is_dir():
        return data / task
    made = resolve_task(TaskOptions(name=task))
    own = runs / f"data-{task}"
    own.mkdir(exist_ok=True)
    for name, split in (("train", made.train), ("validation", made.validation), ("test", made.test)):
        assert split is not None, "embedded tasks have three splits"
        columns = [("text_a", split.texts), ("text_b", split.pairs)] if split.pairs else [("text", split.texts)]
        rows = zip(*(values for _, values in columns), split.labels, strict=True)
        keys = [*(key for key, _ in columns), "label"]
        lines = [json.dumps(dict(zip(keys, [*row[:-1], f"class {row[-1]}"], strict=True))) + "\n" for row in rows]
        (own / f"{name}.jsonl").write_text("".join(lines))
    return own


def search(data: Path, task: str, budget: str, strategy: str, options: list[str], runs: Path) -> dict[str, object]:
    """Run the command line, and read what came of it."""
    name = f"{task}-{budget.rstrip('%')}-{strategy}"
    files = [word for split in ("train", "validation", "test") for word in (f"--{split}", str(data / f"{split}.jsonl"))]
    words = [sys.executable, "-m", "peftsearch", "run", *files, "--budget", budget, "--name", name, "--runs", str(runs)]
    words += ["--resume"] if (runs / name).exists() else []
    words += ["--strategy", strategy] if strategy != "race" else ["--baselines", "full"]
    started = time.monotonic()
    with (runs / f"{name}.log").open("a") as log:
        subprocess.run([*words, *options], check=True, stdout=log, stderr=subprocess.STDOUT)
    best = yaml.safe_load((runs / name / "best.yaml").read_text())
    rows = [
        {"name": r["name"], "baseline": r["baseline"], "reference": r["reference"], "n_params": r["n_params"]}
        | {"test": r["test"]["values"], "validation": r["validation"]["values"]}
        for r in best["comparison"]
        if r["validation"] and r["validation"].get("values")
    ]
    return {
        "pick": best["name"],
        "detail": next(r["detail"] for r in best["comparison"] if r["name"] == best["name"]),
        "verdict": best["verdict"]["kind"],
        "statement": best["verdict"]["statement"],
        "headroom": best["headroom"],
        "budget_params": best["budget"]["n_params"],
        "whole": best["training"]["steps"],
        "steps": steps_of(runs / name),
        "wall_s": round(time.monotonic() - started),
        "rows": rows,
    }


def main() -> None:
    """Make the parts of a row that are not there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("task")
    parser.add_argument("budget")
    parser.add_argument("--options", default="")
    parser.add_argument("--only", nargs="+", default=["race", "s4", "hand"])
    parser.add_argument("--runs", type=Path, default=HERE / "runs")
    arguments = parser.parse_args()
    arguments.runs.mkdir(exist_ok=True)
    made = [json.loads(line) for line in ROWS.read_text().splitlines()] if ROWS.exists() else []
    parts = {r["part"]: r for r in made if (r["task"], r["budget"]) == (arguments.task, arguments.budget)}
    data = folder_of(arguments.data, arguments.task, arguments.runs)
    for part in arguments.only:
        if part in parts:
            continue
        if part == "hand":
            race = parts["race"]
            out = arguments.runs / f"{arguments.task}-{arguments.budget.rstrip('%')}-hand.json"
            limits = [str(race[name]) for name in ("budget_params", "steps", "whole")]
            words = [str(HERE / "by_hand.py"), str(data), *limits]
            subprocess.run([sys.executable, *words, str(out)], check=True)
            found = json.loads(out.read_text())
        else:
            found = search(data, arguments.task, arguments.budget, part, arguments.options.split(), arguments.runs)
        parts[part] = {"task": arguments.task, "budget": arguments.budget, "part": part, "options": arguments.options}
        parts[part] |= found
        with ROWS.open("a") as file:
            file.write(json.dumps(parts[part]) + "\n")


if __name__ == "__main__":
    main()
