"""Questions about the restaurants of E2E, whose answers stand in the descriptions, or do not.

make.py E2E OUT

For each description one or two attributes are asked for, chosen by a seed. The answer is the attribute's value where
the description holds it word for word; an attribute that the meaning does not have is a question without an answer; of
others there is no question.
"""

from __future__ import annotations

import json
import random
import re
import sys
from pathlib import Path

ASKED = {
    "name": "What is the place called?", "eatType": "What kind of place is it?", "food": "Which food is served?",
    "area": "Where is it?", "near": "What is it near?", "priceRange": "How expensive is it?",
    "customer rating": "How do customers rate it?",
}  # fmt: skip
MOST = {"train": 4000, "validation": 500, "test": 1000}


def main(source: Path, out: Path) -> None:
    """Write the three splits."""
    out.mkdir(parents=True, exist_ok=True)
    for split, most in MOST.items():
        rng, rows = random.Random(split), []
        given = [json.loads(line) for line in (source / f"{split}.jsonl").read_text().splitlines() if line]
        rng.shuffle(given)
        for row in given:
            facts = dict(re.findall(r"([\w ]+)\[([^\]]*)\]", row["meaning_representation"].replace(", ", ",")))
            context = row["reference"]
            there = [name for name in ASKED if name in facts and facts[name] in context]
            absent = [name for name in ASKED if name not in facts]
            asked = rng.sample(there, min(2, len(there))) + rng.sample(
                absent, min(1, len(absent)) * (rng.random() < 0.3)
            )
            for name in asked:
                text = [facts[name]] if name in there else []
                answers = {"text": text, "answer_start": [context.index(t) for t in text]}
                rows.append({"question": ASKED[name], "context": context, "answers": answers})
        rng.shuffle(rows)
        (out / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:most]))
        print(split, len(rows), "of which kept", min(most, len(rows)))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
