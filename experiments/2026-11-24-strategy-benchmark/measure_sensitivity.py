"""Measure the scores of the sampler `sensitivity` on both tasks, as a run would; everything else here needs no model.

Usage: python measure_sensitivity.py DATA       (as record.py; writes sensitivity.json beside this file, some seconds)
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import torch
from record import WORDS, options

from peftsearch.searcher.prepare import prepare


def main(data: Path) -> None:
    """One mapping: the anatomy, the budget, and the scores of each task as [stack, block, method, score]."""
    torch.set_num_threads(1)
    found: dict[str, object] = {}
    for task in WORDS:
        with tempfile.TemporaryDirectory() as folder:
            setup = prepare(options(data, task, Path(folder)))
        assert setup.context.sensitivity is not None
        scores = setup.context.sensitivity()
        found |= {"backbone": asdict(setup.backbone) | {"name": "MiniLM-L6"}, "budget": asdict(setup.budget)}
        found[task] = [[*pair, round(score, 6)] for pair, score in scores.items()]
    Path(__file__).with_name("sensitivity.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
