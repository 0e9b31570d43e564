#!/bin/bash
# run.sh E2E RUNS: questions made from E2E, and the default run on them.
set -e
here=$(dirname "$0"); runs=${2:?folder of the runs}
python "$here/make.py" "$1" "$runs/data"
peftsearch run --kind question_answering --train "$runs/data/train.jsonl" --validation "$runs/data/validation.jsonl" \
  --test "$runs/data/test.jsonl" --budget 0.1% --steps 250 --seeds 3 --workers 1 --baselines full \
  --name "questions-0.1%" --runs "$runs"
