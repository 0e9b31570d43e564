#!/bin/bash
# bash experiments/2026-11-26-gpu/run.sh OUT, from a checkout, on a machine with a GPU: at most eight minutes.
# First the benchmark, with nothing beside it, then the tests that need a GPU, a line each as they end.
out=${1:?folder for bench.csv and tests.txt}
mkdir -p "$out"
export PYTHONPATH=$PWD PYTHONUNBUFFERED=1 TOKENIZERS_PARALLELISM=false
timeout -k 5 240 python3 experiments/2026-11-26-gpu/bench.py "$out/bench.csv" --rounds 1 --steps 15
timeout -k 5 220 python3 -m pytest -v -n 10 --dist load -m gpu tests/whole/test_gpu.py --durations=12 2>&1 | tee "$out/tests.txt"
