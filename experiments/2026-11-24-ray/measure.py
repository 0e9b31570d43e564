"""Two Ray workers against one, and what Ray costs a trial: the same search under three ways of running it.

Usage: python measure.py [TRIALS] [STEPS]    (MiniLM on the embedded task; one thread a trial everywhere)

Times are from the study itself: from the start of the first trial to the end of the last, and from the moment at which
the first trial had ended under Ray, which leaves out the start of its workers. A trial's own seconds (`wall_s`) are
those in its engine; what lies between them is the cost of the engine.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import optuna

WAYS = {
    "local": [],
    "ray, 1 worker": ["--engine", "ray", "--max-concurrent", "1"],
    "ray, 2 workers": ["--engine", "ray", "--max-concurrent", "2"],
}


def run(way: str, n_trials: int, n_steps: int, runs: Path) -> list[optuna.trial.FrozenTrial]:
    """One search; returns its trials in the order of their ends."""
    name = way.replace(", ", "-").replace(" ", "-")
    argv = ["run", "--budget", "0.1%", "--strategy", "random", "--trials", str(n_trials), "--steps", "10"]
    argv += ["--search-steps", str(n_steps), "--seeds", "1", "--runs", str(runs), "--name", name, *WAYS[way]]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    subprocess.run([sys.executable, "-m", "peftsearch", *argv], check=True, env=environment, stdout=subprocess.DEVNULL)
    study = optuna.load_study(study_name="search", storage=f"sqlite:///{runs / name / 'study.db'}")
    done = [t for t in study.trials if t.state.is_finished() and "wall_s" in t.user_attrs]
    return sorted(done, key=lambda t: t.datetime_complete)


def main(n_trials: int, n_steps: int) -> None:
    """Print a line a way."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    scores = {}
    with tempfile.TemporaryDirectory() as folder:
        for way in WAYS:
            trials = run(way, n_trials, n_steps, Path(folder))
            scores[way] = {t.user_attrs["name"]: t.user_attrs["score"] for t in trials}
            whole = (trials[-1].datetime_complete - min(t.datetime_start for t in trials)).total_seconds()
            warm = (trials[-1].datetime_complete - trials[0].datetime_complete).total_seconds()
            own = sum(t.user_attrs["wall_s"] for t in trials)
            later = sum(t.user_attrs["wall_s"] for t in trials[1:])
            print(
                f"{way:<15} {len(trials)} trials: {whole:6.1f} s in all, {warm:6.1f} s after the first trial; "
                f"{own / len(trials):.2f} s a trial in the engine, {len(trials[1:]) / warm:.3f} trials a second; "
                f"between trials {(warm - later) / len(trials[1:]):+.3f} s a trial",
                flush=True,
            )
    same = scores["local"] == scores["ray, 1 worker"] == scores["ray, 2 workers"]
    print("scores of all trials are equal" if same else f"scores differ: {scores}")


if __name__ == "__main__":
    main(*(map(int, sys.argv[1:3]) if len(sys.argv) > 2 else (16, 30)))
