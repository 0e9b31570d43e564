"""Time to write the report of a study of 1,000 trials (made up, see tests/studies.py), its parts and the whole command.

Wall time, and in brackets the CPU time of this process and its children, which a loaded machine disturbs less.

Usage, from the repository's root: PYTHONPATH=. python experiments/2026-11-24-report/measure.py [N_TRIALS]
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from peftsearch.report.importance import importances
from peftsearch.report.write_up import write_up
from peftsearch.study.record import read_record
from tests.studies import write_study

N_REPEATS = 5


def main():
    n_trials = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    with tempfile.TemporaryDirectory() as name:
        folder = write_study(Path(name) / "study", n_trials)
        size = (folder / "study.db").stat().st_size
        print(f"{n_trials} trials of the search, study.db {size / 1e6:.1f} MB; median of {N_REPEATS}, s: wall (CPU)")
        record = read_record(folder)
        trials = [t for t in record.scored if t.kind == "search"]
        command = [sys.executable, "-m", "peftsearch", "report", str(folder)]
        parts = {
            "reading the study": lambda: read_record(folder),
            "parameter importance and its 40 shuffles": lambda: importances(trials, seed=0),
            "making the page, importance included": lambda: write_up(record),
            "the command, with the start of Python": lambda: subprocess.run(command, check=True, capture_output=True),
        }
        for what, call in parts.items():
            times = [timed(call) for _ in range(N_REPEATS)]
            wall, cpu = (median(column) for column in zip(*times, strict=True))
            print(f"{what:<42} {wall:6.2f} ({cpu:.2f})")
        page = (folder / "report.html").stat().st_size
        print(f"report.html: {page / 1e6:.1f} MB")


def timed(call):
    """Seconds of wall time and of CPU time."""
    start, used = time.perf_counter(), sum(os.times()[:4])
    call()
    return time.perf_counter() - start, sum(os.times()[:4]) - used


if __name__ == "__main__":
    main()
