"""Tags of words and several classes for each example: every way to write them, and what is refused."""

import csv
import json

import datasets
import pytest

from peftsearch.errors import TaskError
from peftsearch.options import TaskOptions
from peftsearch.tasks import resolve_task
from peftsearch.tasks.task import class_counts

TAGGED = [
    {"tokens": ["fly", "to", "New", "York"], "ner_tags": ["O", "O", "B-city", "I-city"]},
    {"tokens": ["from", "Boston"], "ner_tags": ["O", "B-city"]},
    {"tokens": ["on", "Monday"], "ner_tags": ["O", "B-day"]},
    {"tokens": ["go"], "ner_tags": ["O"]},
]
SETS = [
    {"text": "a goal on the stock market", "labels": ["sport", "money"]},
    {"text": "a goal", "labels": ["sport"]},
    {"text": "rain", "labels": []},
    {"text": "stocks fall in the rain", "labels": ["money", "weather"]},
]
HOT = [[1, 1, 0], [0, 1, 0], [0, 0, 0], [1, 0, 1]]
"""The same, with the classes in natural order."""


def save(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def save_csv(path, rows):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


def resolve(train, **more):
    return resolve_task(TaskOptions(train=train, validation=train, **more))


class TestTags:
    @pytest.fixture
    @staticmethod
    def task(tmp_path):
        return resolve(save(tmp_path / "t.jsonl", TAGGED))

    def test_lists_are_guessed_and_the_outside_tag_is_first(self, task):
        assert (task.kind, task.metric, task.num_labels) == ("tagging", "entity_f1", 4)
        assert task.labels == ("O", "B-city", "B-day", "I-city")
        assert task.train.words[0] == ["fly", "to", "New", "York"]
        assert task.train.tags == [[0, 0, 1, 3], [0, 1], [0, 2], [0]]
        assert class_counts(task).startswith("O 5, B-city 2")

    def test_texts_with_spaces_between_the_words_are_the_same(self, task, tmp_path):
        rows = [{k: " ".join(v) for k, v in row.items()} for row in TAGGED]
        other = resolve(save_csv(tmp_path / "t.csv", rows), kind="tagging")
        assert (other.labels, other.train.words, other.train.tags) == (task.labels, task.train.words, task.train.tags)
        assert other.fingerprint == task.fingerprint

    def test_a_data_set_with_numbered_tags(self, task, tmp_path):
        names = ["O", "B-city", "I-city", "B-day"]
        features = datasets.Features({
            "tokens": datasets.List(datasets.Value("string")),
            "ner_tags": datasets.List(datasets.ClassLabel(names=names)),
        })  # fmt: skip
        data = datasets.Dataset.from_list(TAGGED, features=features)
        datasets.DatasetDict({"train": data, "validation": data}).save_to_disk(tmp_path / "d")
        found = resolve_task(TaskOptions(name=str(tmp_path / "d")))
        assert found.labels == tuple(names)
        assert [[found.labels[t] for t in row] for row in found.train.tags] == [row["ner_tags"] for row in TAGGED]

    def test_marks_of_words_without_a_tag_are_faulty(self, tmp_path):
        """-1 and -100 are no index of a class, though Python would take the last for the first of them."""
        features = datasets.Features({
            "tokens": datasets.List(datasets.Value("string")), "ner_tags": datasets.List(datasets.Value("int64")),
        })  # fmt: skip
        rows = [
            {"tokens": ["fly", "to", "Boston"], "ner_tags": tags}
            for tags in ([0, 0, 1], [0, 0, 1], [-1, 0, 1], [0, -100, 1])
        ]
        data = datasets.Dataset.from_list(rows, features=features)
        named = features | {"ner_tags": datasets.List(datasets.ClassLabel(names=["O", "B-city"]))}
        data = datasets.Dataset(data.data, info=datasets.DatasetInfo(features=datasets.Features(named)))
        datasets.DatasetDict({"train": data, "validation": data}).save_to_disk(tmp_path / "d")
        with pytest.raises(TaskError, match="2 of 4 rows are faulty"):
            resolve_task(TaskOptions(name=str(tmp_path / "d")))
        assert len(resolve_task(TaskOptions(name=str(tmp_path / "d"), bad_rows="drop")).train) == 2

    def test_splits_with_names_and_with_texts_go_together(self, tmp_path):
        names = ["B-day", "O", "I-city", "B-city"]
        features = datasets.Features({
            "tokens": datasets.List(datasets.Value("string")),
            "ner_tags": datasets.List(datasets.ClassLabel(names=names)),
        })  # fmt: skip
        data = {
            "train": datasets.Dataset.from_list(TAGGED),
            "validation": datasets.Dataset.from_list(TAGGED, features=features),
        }
        datasets.DatasetDict(data).save_to_disk(tmp_path / "d")
        task = resolve_task(TaskOptions(name=str(tmp_path / "d")))
        assert task.train.tags == task.validation.tags
        assert not any("number" in note for note in task.notes)

    def test_other_tags_are_another_task(self, task, tmp_path):
        other = resolve(save(tmp_path / "o.jsonl", [*TAGGED[:3], {"tokens": ["go"], "ner_tags": ["B-day"]}]))
        assert other.fingerprint != task.fingerprint

    def test_the_majority_tag_finds_no_entity(self, task):
        assert task.majority_score == 0.0

    @pytest.mark.parametrize(
        ("row", "message"),
        [
            ({"tokens": ["a", "b"], "ner_tags": ["O"]}, "line 5: 1 tags for 2 words"),
            ({"tokens": [], "ner_tags": []}, "line 5: no words, or an empty one, in column 'tokens'"),
            ({"tokens": ["a", " "], "ner_tags": ["O", "O"]}, "line 5: no words, or an empty one"),
            ({"tokens": ["a"], "ner_tags": [None]}, "line 5: column 'ner_tags' does not hold a list of tags"),
            ({"tokens": ["a"], "ner_tags": None}, "no tags in column 'ner_tags'"),
            ({"tokens": [{"x": 1}], "ner_tags": ["O"]}, "does not hold a list of words"),
            ({"tokens": ["\ud800"], "ner_tags": ["O"]}, "half a surrogate pair"),
            ({"tokens": ["a"], "ner_tags": ["\ud800"]}, "does not hold a list of tags"),
            ({"tokens": ["a"], "ner_tags": [True]}, "does not hold a list of tags"),
        ],
    )
    def test_a_faulty_row_is_refused_or_left_out(self, tmp_path, row, message):
        path = save(tmp_path / "t.jsonl", [*TAGGED, row])
        with pytest.raises(TaskError, match=r"\(1 of 5 rows are faulty\)") as error:
            resolve(path, kind="tagging")
        assert message in str(error.value)
        assert len(resolve(path, kind="tagging", bad_rows="drop").train) == 4

    def test_a_tag_that_training_lacks(self, tmp_path):
        train = save(tmp_path / "t.jsonl", TAGGED)
        test = save(tmp_path / "e.jsonl", [*TAGGED, {"tokens": ["at", "noon"], "ner_tags": ["O", "B-time"]}])
        options = TaskOptions(train=train, validation=train, test=test)
        with pytest.raises(TaskError, match="line 5: 'B-time' in column 'ner_tags' is not in training"):
            resolve_task(options)
        assert len(resolve_task(TaskOptions(train=train, validation=train, test=test, bad_rows="drop")).test) == 4

    def test_columns_that_cannot_be_told(self, tmp_path):
        path = save(tmp_path / "t.jsonl", [{"a": ["x"], "b": ["O"]}])
        with pytest.raises(TaskError, match="cannot tell the words and their tags from a, b; name them with"):
            resolve(path, kind="tagging")


class TestSets:
    def expected(self, task):
        return [dict(zip(task.labels, row, strict=True)) for row in task.train.sets]

    @pytest.mark.parametrize("sign", ["|", ";", ","])
    def test_every_way_to_write_them(self, tmp_path, sign):
        whole = resolve(save(tmp_path / "l.jsonl", SETS))
        assert (whole.kind, whole.metric) == ("multi_label", "micro_f1")
        assert whole.labels == ("money", "sport", "weather")
        assert whole.train.sets == HOT
        texts = [{"text": r["text"], "labels": sign.join(r["labels"])} for r in SETS]
        joined = resolve(save_csv(tmp_path / "t.csv", texts), kind="multi_label")
        each = [
            {"text": r["text"], **dict(zip(whole.labels, row, strict=True))} for r, row in zip(SETS, HOT, strict=True)
        ]
        columns = resolve(save_csv(tmp_path / "c.csv", each), label_column="money, sport,weather")
        lists = resolve(save(tmp_path / "h.jsonl", [r | {"labels": row} for r, row in zip(SETS, HOT, strict=True)]))
        assert self.expected(joined) == self.expected(columns) == self.expected(whole)
        assert lists.train.sets == HOT
        assert lists.labels == ("0", "1", "2")

    def test_a_data_set_with_numbered_classes(self, tmp_path):
        names = ["weather", "sport", "money"]
        features = datasets.Features({
            "text": datasets.Value("string"), "labels": datasets.List(datasets.ClassLabel(names=names)),
        })  # fmt: skip
        data = datasets.Dataset.from_list(SETS, features=features)
        datasets.DatasetDict({"train": data, "validation": data}).save_to_disk(tmp_path / "d")
        found = resolve_task(TaskOptions(name=str(tmp_path / "d")))
        assert found.labels == tuple(names)
        assert found.train.sets == [row[::-1] for row in ([1, 1, 0], [0, 1, 0], [0, 0, 0], [1, 0, 1])]

    @pytest.mark.parametrize(
        ("row", "message"),
        [
            ({"text": "x", "labels": None}, "line 5: no label in column 'labels'"),
            ({"text": "", "labels": ["sport"]}, "line 5: empty text in column 'text'"),
            ({"text": "x", "labels": [["sport"]]}, "line 5: column 'labels' does not hold a list of classes"),
            ({"text": "x", "labels": [1, 0]}, "line 5: column 'labels' does not hold a list of classes"),
            ({"text": "x", "labels": 3}, "line 5: column 'labels' does not hold a list of classes"),
            ({"text": "x", "labels": ["\ud800"]}, "line 5: column 'labels' does not hold a list of classes"),
        ],
    )
    def test_a_faulty_row_is_refused_or_left_out(self, tmp_path, row, message):
        path = save(tmp_path / "t.jsonl", [*SETS, row])
        with pytest.raises(TaskError) as error:
            resolve(path, kind="multi_label")
        assert message in str(error.value)
        assert len(resolve(path, kind="multi_label", bad_rows="drop").train) == 4

    def test_cells_that_are_neither_one_nor_zero_are_faulty_rows(self, tmp_path):
        rows = [{"text": f"x{i}", "a": cell, "b": i % 2} for i, cell in enumerate([1, 0, 1, 0, 2, "", "x"])]
        path = save_csv(tmp_path / "c.csv", rows)
        with pytest.raises(TaskError, match=r"line 6: column 'a' holds '2', no 0 or 1 \(3 of 7 rows are faulty"):
            resolve(path, label_column="a,b")
        assert len(resolve(path, label_column="a,b", bad_rows="drop").train) == 4

    def test_the_majority_answers_what_most_examples_have(self, tmp_path):
        """`sport` and `money` are of two of four, which is not most: nothing is answered."""
        assert resolve(save(tmp_path / "l.jsonl", SETS)).majority_score == 0.0
        more = [*SETS, {"text": "goals", "labels": ["sport"]}]
        assert resolve(save(tmp_path / "m.jsonl", more)).majority_score == pytest.approx(2 * 3 / (2 * 3 + 2 + 3))
