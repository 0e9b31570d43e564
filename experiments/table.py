"""Prints the result tables of finished studies as markdown: python experiments/table.py RUNS/* > results.md."""

import sys
from pathlib import Path

import yaml


def score(cell):
    """Mean ± standard deviation (n) of a score of best.yaml."""
    if cell is None:
        return ""
    spread = "" if cell["std"] is None else f" ± {cell['std']:.4f}"
    return f"{cell['mean']:.4f}{spread} ({cell['n']})"


def main():
    """One table for each study given."""
    for folder in map(Path, sys.argv[1:]):
        best = yaml.safe_load((folder / "best.yaml").read_text(encoding="utf-8"))
        task, budget, metric = best["task"], best["budget"], best["task"]["metric"]
        print(f"### {folder.name}: {budget['n_params']:,} parameters, majority class {task['majority_score']:.4f}\n")
        print(f"| design | parameters | {metric}, one short run | validation, mean ± std (n) | test (n) | what it is |")
        print("|---|---|---|---|---|---|")
        for row in best["comparison"]:
            mark = "**" if row["name"] == best["name"] else ""
            kind = " (baseline)" if row["baseline"] else " (reference)" if row.get("reference") else ""
            short = "" if row["search_score"] is None else f"{row['search_score']:.4f}"
            n_params = "" if row["n_params"] is None else f"{row['n_params']:,}"
            cells = (n_params, short, score(row["validation"]), score(row["test"]), row["detail"].replace("|", "/"))
            print(f"| {mark}{row['name']}{mark}{kind} | " + " | ".join(cells) + " |")
        print(f"\n{best['verdict']['statement']} {best['verdict']['settle']}\n")


if __name__ == "__main__":
    main()
