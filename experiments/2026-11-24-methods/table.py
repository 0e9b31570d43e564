"""Print the tables of README.md from scores.csv (measure.py) and cost.csv (cost.py)."""

import csv
import statistics
from collections import defaultdict
from pathlib import Path

HERE = Path(__file__).parent


def rows(name: str) -> list[dict[str, str]]:
    with (HERE / name).open(newline="") as file:
        return list(csv.DictReader(file))


scores, counts, reasons = defaultdict(list), {}, {}
for row in rows("scores.csv"):
    key = row["task"], row["budget"], row["method"]
    if row["score"]:
        scores[key].append(float(row["score"]))
        counts[key] = int(row["n_params"]), int(row["n_changed"])
    else:
        reasons[key] = row["reason"]
for task, budget in dict.fromkeys(key[:2] for key in (*scores, *reasons)):
    print(f"\n### {task}, {budget}\n\n| method | trained | changed | accuracy, mean ± std (n) |\n|---|---:|---:|---|")
    own = {key[2]: values for key, values in scores.items() if key[:2] == (task, budget)}
    for method, values in sorted(own.items(), key=lambda item: -statistics.mean(item[1])):
        trained, changed = counts[task, budget, method]
        spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
        print(f"| {method} | {trained:,} | {changed:,} | {statistics.mean(values):.3f}{spread} ({len(values)}) |")
    for key, reason in reasons.items():
        if key[:2] == (task, budget):
            print(f"| {key[2]} | | | {reason.split(' and the budget')[0]} |")
print("\n| method | trained | changed | step, times LoRA's | counted memory, MB |\n|---|---:|---:|---:|---:|")
for row in rows("cost.csv"):
    print(
        f"| {row['method']} | {int(row['n_params']):,} | {int(row['n_changed']):,} | {float(row['step_ratio']):.2f} | "
        f"{float(row['peak_memory_mb']):.0f} |"
    )
