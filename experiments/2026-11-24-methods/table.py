"""Print the tables of README.md from scores.csv (measure.py), rates.csv (likewise) and cost.csv (cost.py)."""

import csv
import statistics
from collections import defaultdict
from pathlib import Path

HERE = Path(__file__).parent


def rows(name: str) -> list[dict[str, str]]:
    with (HERE / name).open(newline="") as file:
        return list(csv.DictReader(file))


def text(values: list[float]) -> str:
    if not values:
        return ""
    spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    n = "" if len(values) == 3 else f" ({len(values)})"
    return f"{statistics.mean(values):.3f}{spread}{n}"


scores, counts = defaultdict(list), {}
for row in rows("scores.csv"):
    if row["score"]:
        scores[row["method"], row["task"], row["budget"]].append(float(row["score"]))
        counts[row["method"], row["budget"]] = f"{int(row['n_params']):,} / {int(row['n_changed']):,}"
cells = sorted({key[1:] for key in scores}, key=lambda cell: (("trec", "sst2", "rte").index(cell[0]), cell[1]))
methods = sorted(
    {key[0] for key in scores}, key=lambda m: -max(statistics.mean(v) for (name, *_), v in scores.items() if name == m)
)
print("| method | trained / changed at 0.1% | at 0.5% |", " | ".join(f"{t}, {b}" for t, b in cells), "|")
print("|---|---:|---:|" + "---|" * len(cells))
for method in methods:
    own = [counts.get((method, budget), "") for budget in ("0.1%", "0.5%")]
    print(f"| {method} | {own[0]} | {own[1]} |", " | ".join(text(scores[method, t, b]) for t, b in cells), "|")

rates = defaultdict(list)
for row in rows("rates.csv"):
    if row["score"]:
        rates[row["method"], row["task"], row["budget"], float(row["rate"])].append(float(row["score"]))
found = sorted({key[3] for key in rates})
print("\n| method, task, budget |", " | ".join(f"{rate:g}" for rate in found), "|\n|---|" + "---|" * len(found))
for key in sorted({key[:3] for key in rates}):
    print(f"| {', '.join(key)} |", " | ".join(text(rates[*key, rate]) for rate in found), "|")

print("\n| method | trained | changed | step, times LoRA's | counted memory, MB |\n|---|---:|---:|---:|---:|")
for row in rows("cost.csv"):
    print(
        f"| {row['method']} | {int(row['n_params']):,} | {int(row['n_changed']):,} | {float(row['step_ratio']):.2f} | "
        f"{float(row['peak_memory_mb']):.0f} |"
    )
