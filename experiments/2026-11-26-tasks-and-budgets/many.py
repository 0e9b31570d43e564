"""Many rows of the table side by side, as one GPU with several cores allows.

many.py DATA RUNS PROCESSES SECONDS TASK:BUDGET:STEPS:PARTS...

PARTS are of `race`, `s4` and `hand`, joined by commas and made one after the other: `trec:0.1%:300:race,hand`. What is
not finished in time is stopped, and goes on when the command is given again.
"""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

HERE = Path(__file__).parent


def work(jobs: queue.Queue[tuple[str, str, str, str]], data: Path, runs: Path, until: float) -> None:
    """Take jobs until there are none or the time is up."""
    while time.monotonic() < until:
        try:
            task, budget, steps, part = jobs.get_nowait()
        except queue.Empty:
            return
        words = [
            sys.executable,
            str(HERE / "compare.py"),
            str(data),
            task,
            budget,
            "--runs",
            str(runs),
            "--only",
            *part.split(","),
        ]
        words += ["--options", f"--steps {steps} --seeds 5 --workers 1"]
        started = time.monotonic()
        with (runs / f"{task}-{budget}-{part}.out").open("a") as log:
            process = subprocess.Popen(
                words,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
            try:
                code = process.wait(timeout=max(1.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                code = -1
        print(task, budget, part, code, f"{time.monotonic() - started:.0f} s", flush=True)


def main(data: Path, runs: Path, n: int, seconds: float, rows: list[str]) -> None:
    """Run the parts of the rows in `n` processes."""
    runs.mkdir(parents=True, exist_ok=True)
    jobs: queue.Queue[tuple[str, str, str, str]] = queue.Queue()
    for row in rows:
        task, budget, steps, part = row.split(":")
        jobs.put((task, budget, steps, part))
    until = time.monotonic() + seconds
    threads = [threading.Thread(target=work, args=(jobs, data, runs, until)) for _ in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]), sys.argv[5:])
