#!/usr/bin/env bash
# From a search to models that other libraries load: run -> train -> export -> logits in another process.
# MiniLM-L6 on the embedded sentences, few steps; needs the extras demo and peft. Usage: bash run.sh OUT
set -euo pipefail
out=$1
export OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1
peftsearch run --budget 0.1% --space lora --strategy random --trials 2 --steps 30 --search-steps 10 --seeds 2 \
  --confirm-baselines 1 --max-train 600 --runs "$out" --name run
peftsearch train "$out/run" --steps 60 --eval-every 20 --output "$out/trained"
peftsearch evaluate "$out/trained"
for format in peft merged peftsearch; do
  peftsearch export "$out/trained" --format "$format" --output "$out/$format"
done
python logits.py "$out"
