"""Cuts the evaluation splits of E2E down to what one thread can score: python subset.py DATA OUT.

For the search one reference of each of N prompts, drawn with a fixed seed; for the texts of the end all references of
the same N test prompts.
"""

import json
import random
import sys
from pathlib import Path

N_PROMPTS = 40


def main():
    """Write validation.jsonl, test.jsonl and references.jsonl."""
    data, out = map(Path, sys.argv[1:])
    out.mkdir(parents=True, exist_ok=True)
    for name in ("validation", "test"):
        groups = {}
        for line in (data / f"{name}.jsonl").read_text(encoding="utf-8").splitlines():
            groups.setdefault(json.loads(line)["meaning_representation"], []).append(line)
        rng = random.Random(0)
        chosen = rng.sample(sorted(groups), N_PROMPTS)
        (out / f"{name}.jsonl").write_text("\n".join(rng.choice(groups[p]) for p in chosen) + "\n", encoding="utf-8")
        if name == "test":
            rows = [line for prompt in chosen for line in groups[prompt]]
            (out / "references.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
