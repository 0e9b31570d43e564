"""`train` in two processes on CPUs, as torchrun and `accelerate launch` start them: the losses and scores of one."""

import csv
import json
import os
import socket
import subprocess
import sys

import pytest


@pytest.mark.slow
def test_two_processes_train_as_one(calm, train, tmp_path):
    _, model, files = calm
    common = ["--steps", "8", "--eval-every", "4", "--seeds", "1"]
    assert train(tmp_path / "one", *common) == 0
    words = ["train", "--method", "lora", "--budget", "20%", "--model", model, "--train", files[0]]
    words += ["--validation", files[1], "--test", files[1], "--device", "cpu", "--dtype", "fp32", *common]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = ["--master_addr", "127.0.0.1", "--master_port", str(free.getsockname()[1])]
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", *place, "-m", "peftsearch"]
    done = subprocess.run(
        [*launch, *map(str, words), "--output", str(tmp_path / "two")],
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "2 processes on cpu" in done.stdout
    assert done.stdout.count("step     8 of 8") == 1, "only the first process prints"
    one, two = (
        list(csv.DictReader((tmp_path / name / "curve.csv").read_text().splitlines())) for name in ("one", "two")
    )
    losses = [[float(row["loss"]) for row in rows if row.get("loss")] for rows in (one, two)]
    assert losses[1] == pytest.approx(losses[0], abs=1e-4)
    scores = [json.loads((tmp_path / name / "metrics.json").read_text())["test"]["mean"] for name in ("one", "two")]
    assert scores[0] == scores[1]
