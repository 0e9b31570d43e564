#!/bin/bash
# bash experiments/2026-11-26-gpu/run.sh OUT, from a checkout, on a machine with a GPU: at most eight minutes.
# First what is missing there, then the benchmark, with nothing beside it, then the tests that need a GPU, each in a
# process of its own, so that the result of one is on disk when time is up in another.
out=${1:?folder for bench.csv and a file for each test}
mkdir -p "$out"
export PYTHONPATH=$PWD PYTHONUNBUFFERED=1 TOKENIZERS_PARALLELISM=false
python3 - <<'PY' || exit 1
import importlib.util, sys
names = "torch transformers datasets optuna accelerate pandas sklearn cyclopts pydantic jinja2 plotly peft bitsandbytes ray pytest xdist"
missing = [name for name in names.split() if importlib.util.find_spec(name) is None]
sys.exit(f"missing: {', '.join(missing)}" if missing else 0)
PY
python3 -c "import peftsearch.cli.main, peftsearch.searcher.run, peftsearch.trainer.run" || exit 1
timeout -k 5 200 python3 experiments/2026-11-26-gpu/bench.py "$out/bench.csv" --rounds 2 --steps 20
python3 -m pytest -o addopts= -q -m gpu --collect-only tests/whole/test_gpu.py -p no:benchmark | grep :: | while read -r name; do
  (timeout -k 5 200 python3 -m pytest -q -n 0 -m gpu -p no:benchmark -p no:cacheprovider --tb=short "$name" >"$out/${name##*::}.txt" 2>&1
   echo "$name: $(tail -n 1 "$out/${name##*::}.txt")" | tee -a "$out/tests.txt") &
done
sleep 1
while pgrep -f "pytest -q -n 0 -m gpu" >/dev/null; do sleep 1; done
