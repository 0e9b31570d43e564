#!/usr/bin/env bash
# The real runs: MiniLM-L6 on TREC (6 classes) and SST-2 (6,920 sentences), all six baselines confirmed.
# Usage: DATA=folder-with-sst2-and-trec bash run.sh TASK BUDGET   (each holds train.jsonl, validation.jsonl, test.jsonl)
set -euo pipefail
task=$1 budget=$2
peftsearch run --budget "$budget" --name "$task-$budget" \
  --train "$DATA/$task/train.jsonl" --validation "$DATA/$task/validation.jsonl" --test "$DATA/$task/test.jsonl" \
  --strategy s4 --trials 20 --search-steps 40 --steps 100 --seeds 3 --confirm-baselines 6 --max-length 64
