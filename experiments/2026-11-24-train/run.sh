#!/usr/bin/env bash
# What a search found, trained in full, against LoRA of the same budget and full fine-tuning: MiniLM-L6 on SST-2 and TREC.
# Usage: DATA=folder-with-sst2-and-trec bash run.sh TASK TRIAL LENGTH...
#   bash run.sh trec "trial 15" --epochs 3
#   bash run.sh sst2 "trial 9" --steps 200 --eval-every 100
# TRIAL is the best searched design of the run (pick.py writes its best.yaml; the run itself picked LoRA in a tie).
set -euo pipefail
task=$1 trial=$2 here=$(dirname "$0")
shift 2
peftsearch run --budget 0.5% --name "$task" \
  --train "$DATA/$task/train.jsonl" --validation "$DATA/$task/validation.jsonl" --test "$DATA/$task/test.jsonl" \
  --strategy sensitivity --trials 24 --search-steps 40 --steps 100 --seeds 3 --confirm-baselines 3 --max-length 64
python "$here/pick.py" "runs/$task" "$trial" "runs/$task/trial.yaml"
peftsearch train "runs/$task" "$@" --seeds 3 --output "trained/$task-pick"
peftsearch train "runs/$task/trial.yaml" "$@" --seeds 3 --output "trained/$task-trial"
peftsearch train "runs/$task" --method lora --budget 0.5% "$@" --seeds 3 --output "trained/$task-lora"
peftsearch train "runs/$task" --method full "$@" --seeds 3 --output "trained/$task-full"
