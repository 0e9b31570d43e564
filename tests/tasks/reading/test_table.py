"""Lines and cells of files: what is no row, what has no name, and what is no text."""

import json

import pytest

from peftsearch.errors import TaskError
from peftsearch.options import TaskOptions
from peftsearch.tasks import resolve_task
from peftsearch.tasks.reading.table import read_table
from tests.tasks import FOUR, Write


@pytest.mark.parametrize(
    ("name", "bad", "told"),
    [
        ("a.csv", "one,two,three\n", "line 6: 3 fields where the header has 2"),
        ("a.csv", "alone\n", "line 6: 1 fields where the header has 2"),
        ("a.jsonl", '{"text": \n', "line 5: malformed JSON"),
        ("a.jsonl", "[1]\n", "line 5: a JSON list, an object is needed"),
    ],
)
def test_lines_that_are_no_rows_are_counted_or_left_out(write: Write, name: str, bad: str, told: str) -> None:
    rows = [line.split(",") for line in FOUR.splitlines()[1:]]
    lines = "".join(f'{{"text": "{text}", "label": "{label}"}}\n' for text, label in rows)
    whole = write(f"v{name}", FOUR if name.endswith(".csv") else lines)
    path = write(name, whole.read_text() + bad)
    with pytest.raises(TaskError, match="leave them out with --bad-rows drop") as error:
        resolve_task(TaskOptions(train=path, validation=whole))
    assert told in str(error.value)
    twice = write(f"2{name}", path.read_text() + bad)
    with pytest.raises(TaskError, match="2 of 6 rows are faulty"):
        resolve_task(TaskOptions(train=twice, validation=whole))
    task = resolve_task(TaskOptions(train=twice, validation=whole, bad_rows="drop"))
    assert len(task.train) == 4
    assert any("2 of 6 rows are faulty and were left out" in note for note in task.notes)


def test_unnamed_columns_and_empty_rows_keep_their_place(write: Write) -> None:
    """As pandas writes an index, and as a spreadsheet writes rows of empty cells, within the table and behind it."""
    table = read_table(write("a.csv", ",text,\n0,one,x\n,,\n2,two,y\n,,\n,,\n"))
    assert table.columns == {"": ["0", "", "2"], "text": ["one", "", "two"], "unnamed 3": ["x", "", "y"]}
    assert table.lines == [2, 3, 4]


def test_what_is_no_object_in_a_list_of_json_is_left_out(write: Write) -> None:
    rows = [{"text": text, "label": label} for text, label in (line.split(",") for line in FOUR.splitlines()[1:])]
    path = write("a.json", json.dumps([*rows, 5, None, "x"]))
    with pytest.raises(TaskError, match="3 of 7 rows are faulty: row 5: a JSON int, an object is needed"):
        resolve_task(TaskOptions(train=path, validation=path))
    assert len(resolve_task(TaskOptions(train=path, validation=path, bad_rows="drop")).train) == 4


def test_columns_without_a_name_are_never_lost(write: Write) -> None:
    table = read_table(write("a.csv", "text,,,unnamed 3\nfilm,1,2,3\n"))
    assert [values[0] for values in table.columns.values()] == ["film", "1", "2", "3"]


def test_a_text_among_lists_of_ids_is_the_faulty_one(write: Write) -> None:
    rows = [{"input_ids": [1, 5 + i % 3, 2], "label": "ab"[i % 2]} for i in range(10)]
    path = write("t.jsonl", "".join(json.dumps(row) + "\n" for row in [*rows, {"input_ids": "1 2", "label": "a"}]))
    with pytest.raises(TaskError, match=r"line 11: .*1 of 11 rows are faulty"):
        resolve_task(TaskOptions(train=path, validation=path))
    assert len(resolve_task(TaskOptions(train=path, validation=path, bad_rows="drop")).train) == 10


def test_a_label_that_is_no_unicode_is_a_faulty_row(write: Write) -> None:
    rows = [{"text": f"x{i}", "label": "ab"[i % 2]} for i in range(6)]
    path = write("t.jsonl", "".join(json.dumps(row) + "\n" for row in [*rows, {"text": "y", "label": "\ud800"}]))
    with pytest.raises(TaskError, match="line 7: column 'label' holds half a surrogate pair"):
        resolve_task(TaskOptions(train=path, validation=path))
    assert len(resolve_task(TaskOptions(train=path, validation=path, bad_rows="drop")).train) == 6
