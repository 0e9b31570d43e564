"""Faulty rows of every kind of data: all are counted, and left out where the user wants it."""

import json

import pytest
from PIL import Image

from peftsearch.errors import TaskError
from tests.tasks import resolve_task


def chat(answer):
    return {"messages": [{"role": "user", "content": f"a{answer}"}, {"role": "assistant", "content": answer}]}


TEXTS = [{"text": f"t{i}", "label": "xy"[i % 2]} for i in range(10)]
NUMBERS = [{"text": f"t{i}", "label": i + 0.5} for i in range(12)]
PAIRS = [{"prompt": f"p{i}", "completion": f"c{i}"} for i in range(10)]
CHATS = [chat(f"b{i}") for i in range(10)]
KINDS = {
    "texts": (TEXTS, [{"text": " ", "label": "x"}, {"text": "t", "label": None}, {"text": [1], "label": "x"}]),
    "numbers": (NUMBERS, [{"text": "t", "label": "inf"}, {"text": "t", "label": "much"}, {"text": "", "label": 1}]),
    "pairs": (PAIRS, [{"prompt": "", "completion": "c"}, {"prompt": "p", "completion": " "}, {"prompt": "p"}]),
    "chats": (CHATS, [chat(""), {"messages": None}, {"messages": [{"role": "judge", "content": "a"}]}]),
}


def save(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_all_faulty_rows_are_counted_or_left_out(kind, tmp_path):
    good, bad = KINDS[kind]
    rows = [*good[:4], bad[0], *good[4:], *bad[1:]]
    more = {"kind": "generation"} if kind == "pairs" else {"kind": "regression"} if kind == "numbers" else {}
    train = save(tmp_path / "train.jsonl", rows)
    with pytest.raises(
        TaskError, match=rf"train.jsonl, line 5: .*\(3 of {len(rows)} rows are faulty; next: line .*drop"
    ):
        resolve_task(train=train, **more)
    task = resolve_task(train=train, bad_rows="drop", **more)
    whole = resolve_task(train=save(tmp_path / "whole.jsonl", good), **more)
    assert (task.train, task.validation) == (whole.train, whole.validation)
    assert any(f"3 of {len(rows)} rows are faulty and were left out: line 5: " in note for note in task.notes)


def test_an_unknown_class_of_validation_can_be_left_out(tmp_path):
    train = save(tmp_path / "train.jsonl", TEXTS)
    validation = save(
        tmp_path / "v.jsonl", [*({"text": f"v{i}", "label": "x"} for i in range(3)), {"text": "a", "label": "z"}]
    )
    with pytest.raises(TaskError, match=r"v.jsonl, line 4: label 'z' does not occur"):
        resolve_task(train=train, validation=validation)
    assert len(resolve_task(train=train, validation=validation, bad_rows="drop").validation) == 3


def test_a_file_with_nothing_but_faulty_rows_is_refused(tmp_path):
    train = save(tmp_path / "train.jsonl", [{"text": "", "label": "x"}] * 4)
    with pytest.raises(TaskError, match=r"4 of 4 rows are faulty; .*correct them$"):
        resolve_task(train=train, bad_rows="drop")


def test_images_that_cannot_be_read(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for i in range(4):
            Image.new("RGB", (8, 8), (i, 0, 0)).save(tmp_path / name / f"{i}.png")
    (tmp_path / "cat" / "broken.png").symlink_to(tmp_path / "nowhere.png")
    task = resolve_task(train=tmp_path, kind="image", bad_rows="drop")
    assert len(task.train) + len(task.validation) == 8
