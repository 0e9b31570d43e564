"""Questions with answers in their contexts: every way to write them, and what is refused."""

import csv
import json

import datasets
import pytest

from peftsearch.errors import TaskError
from peftsearch.options import TaskOptions
from peftsearch.tasks import resolve_task

CONTEXT = "The inn stands in the north. The old inn is in the south."
ROWS = [
    {"question": "Where is the old inn?", "context": CONTEXT, "answers": {"text": ["south"], "answer_start": [51]}},
    {
        "question": "Which inn is in the south?",
        "context": CONTEXT,
        "answers": {"text": ["old inn", "The old inn"], "answer_start": [33, 29]},
    },
    {"question": "Who owns it?", "context": CONTEXT, "answers": {"text": [], "answer_start": []}},
    {"question": "What stands in the north?", "context": CONTEXT, "answers": {"text": ["inn"], "answer_start": [4]}},
]


def save(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def resolve(train, **more):
    return resolve_task(TaskOptions(train=train, validation=train, **more))


@pytest.fixture
def task(tmp_path):
    return resolve(save(tmp_path / "t.jsonl", ROWS))


def test_the_usual_columns_are_guessed(task):
    assert (task.kind, task.metric, task.num_labels) == ("question_answering", "answer_f1", 2)
    assert task.train.spans == [[51, 56], [33, 40], [], [4, 7]]
    assert task.train.references == [["south"], ["old inn", "The old inn"], [], ["inn"]]
    assert task.train.pairs == [CONTEXT] * 4


def test_every_way_to_write_answers_is_the_same(task, tmp_path):
    plain = [{**row, "answers": row["answers"]["text"]} for row in ROWS]
    plain[3]["answers"] = "inn"  # the first in its context
    assert resolve(save(tmp_path / "p.jsonl", plain)).fingerprint == task.fingerprint
    listed = [
        {**row, "answers": [{"text": t, "answer_start": s} for t, s in zip(*row["answers"].values(), strict=True)]}
        for row in ROWS
    ]
    assert resolve(save(tmp_path / "l.jsonl", listed)).fingerprint == task.fingerprint
    with (tmp_path / "t.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ROWS[0])
        writer.writeheader()
        writer.writerows({**row, "answers": json.dumps(row["answers"])} for row in ROWS)
    assert resolve(tmp_path / "t.csv").fingerprint == task.fingerprint


def test_a_single_answer_with_its_place_and_other_names_of_columns(tmp_path):
    rows = [{"q": "Which?", "passage": "in in", "answer": "in", "answer_start": at} for at in (3, 0, 3, 0)]
    found = resolve(save(tmp_path / "t.jsonl", rows), kind="question_answering", text_column="q")
    assert found.train.spans == [[3, 5], [0, 2]] * 2
    assert "context 'passage', answers 'answer'" in found.notes[0]


def test_a_data_set_folder_is_the_same(task, tmp_path):
    both = datasets.Dataset.from_list(ROWS)
    datasets.DatasetDict({"train": both, "validation": both}).save_to_disk(tmp_path / "squad")
    found = resolve_task(TaskOptions(name=str(tmp_path / "squad")))
    assert (found.fingerprint, found.kind) == (task.fingerprint, task.kind)


@pytest.mark.parametrize(
    ("answers", "told"),
    [
        ("west", "the answer 'west' does not stand in its context"),
        ({"text": ["south"], "answer_start": [50]}, "does not stand at character 50 of its context"),
        ({"text": ["south"], "answer_start": [1, 2]}, "1 answers and 2 places"),
        ({"text": ["inn"], "answer_start": "twenty"}, "'twenty' is no place of a character"),
        ({"text": ["inn"], "answer_start": [4.5]}, "'4.5' is no place of a character"),
        ({"text": ["inn"], "answer_start": "inf"}, "'inf' is no place of a character"),
        (7, "the answer '7' does not stand in its context"),
        ([["south"]], "no answers"),
        ("[" * 100_000, "does not stand in its context"),
        (None, r"nothing in column .answers. \(\[\] says that the context has no answer\)"),
        ({"text": [" "]}, "an answer is empty"),
    ],
)
def test_a_faulty_row_is_named(answers, told, tmp_path):
    train = save(tmp_path / "t.jsonl", ROWS)
    bad = save(tmp_path / "bad.jsonl", [*ROWS, {**ROWS[0], "answers": answers}])
    options = TaskOptions(train=bad, validation=train, kind="question_answering")
    with pytest.raises(TaskError, match=rf"line 5: .*{told}.*1 of 5 rows are faulty"):
        resolve_task(options)
    dropped = resolve_task(TaskOptions(train=bad, validation=train, kind="question_answering", bad_rows="drop"))
    assert len(dropped.train) == 4


def test_columns_that_cannot_be_told_are_refused(tmp_path):
    rows = [{"a": "x", "b": "y", "c": "y"}] * 4
    with pytest.raises(TaskError, match="cannot tell question, context and answers from a, b, c"):
        resolve(save(tmp_path / "t.jsonl", rows), kind="question_answering")


@pytest.mark.parametrize(
    ("answers", "start"),
    [
        ("in", 3), ("in", [3]), ("in", "3"), (["in"], [3]), (["in"], 3), ('["in"]', "[3]"), ({"text": ["in"]}, [3]),
        ([{"text": "in", "start": 3}], None), ({"text": "in", "answer_start": "3"}, None),
    ],
)  # fmt: skip
def test_the_place_of_an_answer_is_read_wherever_it_is_written(answers, start, tmp_path):
    rows = [{"question": "Which?", "context": "in in", "answers": answers, "Answer_Start": start}] * 4
    assert resolve(save(tmp_path / "t.jsonl", rows)).train.spans == [[3, 5]] * 4


def test_texts_that_look_like_lists_and_white_space_around_answers(tmp_path):
    rows = [
        {"question": "Which?", "context": "see [5] and []", "answers": answer} for answer in ("[5]", "[]", " and ", 5)
    ]
    assert resolve(save(tmp_path / "t.jsonl", rows)).train.spans == [[4, 7], [12, 14], [8, 11], [5, 6]]


def test_questions_about_one_context_stay_together(tmp_path):
    rows = [{"question": f"{i}?", "context": f"the inn {k}", "answers": ["inn"]} for k in range(20) for i in range(5)]
    task = resolve_task(TaskOptions(train=save(tmp_path / "t.jsonl", rows)))
    assert len(task.validation) == 15
    assert not set(task.validation.contexts) & set(task.train.contexts)
