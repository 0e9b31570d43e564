#!/usr/bin/env bash
# The real runs: MiniLM-L6 on SST-2 (6,920 sentences) and TREC (6 classes) at 0.1% and 0.5%, all baselines confirmed.
# Usage: DATA=folder-with-sst2-and-trec bash run.sh   (each holds train.jsonl, validation.jsonl, test.jsonl)
set -euo pipefail
for task in trec sst2; do
  for budget in 0.1% 0.5%; do
    peftsearch run --budget "$budget" --name "$task-$budget" \
      --train "$DATA/$task/train.jsonl" --validation "$DATA/$task/validation.jsonl" --test "$DATA/$task/test.jsonl" \
      --strategy s4 --trials 28 --search-steps 40 --steps 150 --seeds 4 --confirm-baselines 6 --max-length 64
  done
done
