"""Check the claims of finished runs with ten fresh seeds: both designs of the claim, trained and tested anew.

A winner holds if its mean is above the best baseline's; an equivalent, or a baseline, if it is not 0.5 points behind.

claims.py RUN ...; prints a line for each run, and appends it to claims.csv.
"""

from __future__ import annotations

import csv
import re
import sys
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev

from peftsearch.design.architecture import Architecture
from peftsearch.engine.job import Job
from peftsearch.searcher.options import read_options
from peftsearch.searcher.prepare import prepare, stored_plan
from peftsearch.searcher.run import engine_of
from peftsearch.study.best import read_best

SEEDS = range(5000, 5010)
HERE = Path(__file__).parent


def scores(folder: Path, names: tuple[str, ...]) -> dict[str, list[float]]:
    """Test scores of confirmed designs over the fresh seeds."""
    options = read_options(folder)
    setup = prepare(options, plan=stored_plan(folder))
    engine = engine_of(setup)
    found = {}
    for name in names:
        _, best = read_best(folder, name)
        job = Job(
            architecture=Architecture.from_dict(best.architecture),
            learning_rate=best.learning_rate,
            steps=best.steps,
            measure=False,
            test=True,
            retry=True,
        )
        if not best.architecture["blocks"]:  # the head alone takes no steps
            job = replace(job, steps=0, retry=False)
        tests = (engine.run(replace(job, seed=seed)).tests[0].score for seed in SEEDS)
        found[name] = [score for score in tests if score is not None]
    return found


def main(folders: list[str]) -> None:
    """Check run after run."""
    for folder in map(Path, folders):
        _, best = read_best(folder)
        verdict = best.verdict
        kind, statement = verdict.kind, verdict.statement
        rows = [r for r in best.comparison if r.validation and not r.reference]
        others = [r for r in rows if r.baseline != (kind == "baseline")]
        rival = max(others, key=lambda r: mean(r.validation["values"])).name
        claimed = {"winner": best.name, "baseline": best.name, "equivalent": verdict.small}.get(kind)
        line: dict[str, object] = {"run": folder.name, "verdict": kind, "pick": best.name, "rival": rival}
        if claimed is not None and claimed != rival:
            found = scores(folder, (claimed, rival))
            gaps = [a - b for a, b in zip(found[claimed], found[rival], strict=True)]
            gap, error = mean(gaps), stdev(gaps) / len(gaps) ** 0.5
            holds = gap > 0 if kind == "winner" else gap > -0.005
            line |= {"claimed": claimed, "gap": round(gap, 5), "se": round(error, 5), "n": len(gaps), "holds": holds}
        print(line, re.sub(r"\s+", " ", statement), flush=True)
        with (HERE / "claims.csv").open("a", newline="") as file:
            names = ["run", "verdict", "pick", "rival", "claimed", "gap", "se", "n", "holds", "statement"]
            writer = csv.DictWriter(file, names)
            if file.tell() == 0:
                writer.writeheader()
            writer.writerow(line | {"statement": statement})


if __name__ == "__main__":
    main(sys.argv[1:])
