"""Chats of a system, a user and an assistant from E2E: make.py DATA OUT."""

import json
import random
import sys
from pathlib import Path

SYSTEM = "You write one sentence about a restaurant from its facts."


def read(path: Path) -> list[dict[str, str]]:
    """The rows of a JSONL file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def firsts(rows: list[dict[str, str]], n: int) -> list[dict[str, str]]:
    """The first reference of each of the first n prompts."""
    seen: dict[str, dict[str, str]] = {}
    for row in rows:
        seen.setdefault(row["meaning_representation"], row)
    return list(seen.values())[:n]


def chat(row: dict[str, str]) -> str:
    """A line of JSON."""
    turns = (("system", SYSTEM), ("user", row["meaning_representation"]), ("assistant", row["reference"]))
    return json.dumps({"messages": [{"role": role, "content": content} for role, content in turns]})


if __name__ == "__main__":
    data, out = map(Path, sys.argv[1:])
    train = read(data / "train.jsonl")
    random.Random(0).shuffle(train)
    splits = {"train": train[:400]}
    splits |= {name: firsts(read(data / f"{name}.jsonl"), 40) for name in ("validation", "test")}
    for name, rows in splits.items():
        (out / f"{name}.jsonl").write_text("".join(chat(row) + "\n" for row in rows))
