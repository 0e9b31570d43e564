"""Prompts and completions: what Alpaca's columns become, and that texts that are left out are told."""

import json

import pytest

from peftsearch.options import TaskOptions
from peftsearch.tasks import resolve_task

ROWS = [
    {"instruction": f"Add the numbers {i}", "input": "" if i % 2 else f"{i} and {i}", "output": f"It is {2 * i}."}
    for i in range(6)
]


def load(folder, rows, **options):
    for name in ("train", "validation"):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = {name: folder / f"{name}.jsonl" for name in ("train", "validation")}
    return resolve_task(TaskOptions(kind="generation", **files, **options))


def test_alpaca_keeps_the_instruction_and_the_input(tmp_path):
    task = load(tmp_path, ROWS)
    assert task.train.texts[0] == "Add the numbers 0\n\n0 and 0\n"
    assert task.train.texts[1] == "Add the numbers 1\n"
    assert task.train.pairs[1] == "It is 2."
    assert any("read as Alpaca: prompt 'instruction' and 'input', completion 'output'" in note for note in task.notes)


@pytest.mark.parametrize(
    ("options", "prompt"),
    [({"prompt_column": "input"}, "0 and 0\n"), ({"prompt_column": "instruction"}, "Add the numbers 0\n")],
)
def test_a_named_column_holds_against_the_guess(tmp_path, options, prompt):
    task = load(tmp_path, [row | {"input": "0 and 0"} for row in ROWS], completion_column="output", **options)
    assert task.train.texts[0] == prompt


def test_texts_that_are_left_out_are_told(tmp_path):
    rows = [{"prompt": "a b", "completion": "c d", "reasoning": "first this, then that", "id": "x1"}] * 3
    task = load(tmp_path, [{**row, "prompt": f"a {i}"} for i, row in enumerate(rows)])
    assert [note for note in task.notes if "NOT USED" in note] == [
        f"{tmp_path / 'train.jsonl'}: NOT USED, though texts: 'reasoning'; name the columns to use another"
    ]
