#!/usr/bin/env bash
# SmolLM2-135M on E2E at 0.1%, one thread: a short search, then greedy texts beside the untuned model's.
# Usage: DATA=folder-with-the-three-jsonl MODEL=SmolLM2-135M-Instruct.Q4_1.gguf bash run.sh OUT
set -euo pipefail
out=$1
export OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1
python subset.py "$DATA" "$out/data"
peftsearch run --budget 0.1% --kind generation --model "$MODEL" --train "$DATA/train.jsonl" \
  --validation "$out/data/validation.jsonl" --test "$out/data/test.jsonl" --strategy random --trials 3 \
  --search-steps 8 --steps 16 --seeds 2 --confirm-baselines 1 --batch-size 8 --max-length 128 --max-train 400 \
  --runs "$out/runs" --name e2e-0.1pct
python score.py "$MODEL" "$DATA" "$out/data"
python score.py "$MODEL" "$DATA" "$out/data" "$out/runs/e2e-0.1pct" adapter
