"""Seconds of commands that train nothing: the best of five of each, printed as a table.

seconds.py RUN

RUN is the folder of a finished run of the README's first command, made in the current directory.
"""

from __future__ import annotations

import subprocess
import sys
import time

COMMANDS = {
    "--help": (["--help"], 0),
    "runs": (["runs"], 0),
    "show RUN": (["show", "RUN"], 0),
    "compare RUN RUN": (["compare", "RUN", "RUN"], 0),
    "the finished run again": (["run", "--budget", "0.1%", "--time", "3m30s", "--name", "NAME"], 0),
    "list methods": (["list", "methods"], 0),
    "run without a budget": (["run"], 2),
    "unknown strategy": (["run", "--budget", "1%", "--strategy", "nope"], 2),
    "unknown option": (["run", "--bugdet", "1%"], 2),
    "unknown tracker": (["run", "--budget", "1%", "--track", "wandbb"], 2),
    "metric that cannot be imported": (["run", "--budget", "1%", "--metric", "no.such:thing"], 2),
    "config that is not there": (["run", "--config", "nope.yaml"], 2),
    "extend a folder that is no run": (["extend", "nope", "--seeds", "9"], 2),
    "evaluate a folder that is none": (["evaluate", "nope"], 2),
}


def main(run: str) -> None:
    """Time every command."""
    for name, (words, status) in COMMANDS.items():
        own = [word.replace("RUN", run).replace("NAME", run.rpartition("/")[2]) for word in words]
        taken = []
        for _ in range(5):
            started = time.perf_counter()
            done = subprocess.run(["peftsearch", *own], capture_output=True, text=True)
            taken.append(time.perf_counter() - started)
            assert done.returncode == status, (name, done.returncode, done.stderr)
        print(f"| {name} | {min(taken):.2f} |")


if __name__ == "__main__":
    main(sys.argv[1])
