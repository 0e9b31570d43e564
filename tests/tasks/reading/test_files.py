"""Files: what is read from each form, what is guessed, and the one line that every fault gets."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peftsearch.errors import TaskError
from peftsearch.tasks.reading.build import split_off
from peftsearch.tasks.reading.classes import class_name, natural_key
from peftsearch.tasks.task import Split, class_counts
from tests.tasks import FOUR, Write, load_files


def rows_json(*rows: Mapping[str, object]) -> str:
    return "\n".join(map(json.dumps, rows))


def test_a_plain_csv(write: Write) -> None:
    task = load_files(write("train.csv", FOUR), write("val.csv", FOUR))
    assert task.train.texts == ["good one", "bad one", "fine one", "poor one"]
    assert task.labels == ("neg", "pos")
    assert task.train.labels == [1, 0, 1, 0]
    assert (task.kind, task.metric, task.num_labels, task.test, task.train.pairs) == (
        "classification", "accuracy", 2, None, None,
    )  # fmt: skip
    assert task.source == "files train=train.csv, validation=val.csv"
    assert any("columns guessed: text 'text', label 'label'" in note for note in task.notes)
    assert "4 texts of validation occur in train too" in task.notes


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("excel.csv", b"\xef\xbb\xbf" + FOUR.replace(",", ";").replace("\n", "\r\n").encode()),
        ("tabs.csv", FOUR.replace(",", "\t")),
        ("tabs.tsv", FOUR.replace(",", "\t")),
        ("bars.csv", FOUR.replace(",", "|")),
        ("blank.csv", FOUR.replace("\n", "\n\n") + ",\n"),
        ("index.csv", "".join(f"{'' if i == 0 else i},{line}\n" for i, line in enumerate(FOUR.splitlines()))),
    ],
)
def test_dialects_read_the_same(write: Write, name: str, content: str | bytes) -> None:
    plain, other = load_files(write("plain.csv", FOUR)), load_files(write(name, content))
    assert other.fingerprint == plain.fingerprint


def test_every_form_reads_the_same(write: Write, tmp_path: Path) -> None:
    import pyarrow as pa  # type: ignore[import-untyped]  # has no type hints
    from pyarrow import parquet

    rows = [dict(zip(("text", "label"), line.split(","), strict=True)) for line in FOUR.splitlines()[1:]]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    write("a.jsonl", rows_json(*rows) + "\n\n")
    write("a.ndjson", rows_json(*rows))
    write("a.json", json.dumps(rows))
    expected = load_files(write("a.csv", FOUR)).fingerprint
    for suffix in ("parquet", "jsonl", "ndjson", "json"):
        assert load_files(tmp_path / f"a.{suffix}").fingerprint == expected


def test_quoted_line_ends_and_delimiters(write: Write) -> None:
    content = 'text,label\r\n"two\r\nlines, one ""field""",a\r\nplain,b\r\nx,a\r\ny,b\r\n'
    task = load_files(write("t.csv", content), write("v.csv", content))
    assert task.train.texts[0] == 'two\r\nlines, one "field"'
    short = content + "\r\nz\r\n"
    with pytest.raises(TaskError, match=r"t2.csv, line 8: 1 fields where the header has 2 \(delimiter ','\)"):
        load_files(write("t2.csv", short))


def test_bare_quotes_in_tsv(write: Write) -> None:
    task = load_files(write("t.tsv", 'sentence\tlabel\n"so" it goes\t1\nno\t0\nyes " no\t1\nwell\t0\n'))
    assert '"so" it goes' in task.train.texts + task.validation.texts


@pytest.mark.parametrize(
    ("row", "pair"),
    [
        ({"text": "a"}, False),
        ({"Sentence": "a"}, False),
        ({"premise": "a", "hypothesis": "b"}, True),
        ({"text_a": "a", "text_b": "b"}, True),
        ({"question1": "a", "question2": "b"}, True),
        ({"idx": 3, "Utterance": "a"}, False),
    ],
)
@pytest.mark.parametrize("label", ["label", "Labels", "class", "target", "score"])
def test_column_guesses(write: Write, row: dict[str, object], pair: bool, label: str) -> None:
    content = rows_json(*[{**row, label: i % 2} for i in range(8)])
    task = load_files(write("t.jsonl", content))
    assert (task.train.pairs is not None) == pair
    assert set(task.train.texts) == {"a"}
    assert set(task.train.pairs or "b") == {"b"}


@pytest.mark.parametrize("header", ["intent,utterance", "utterance,intent"])
def test_two_unnamed_columns(write: Write, header: str) -> None:
    rows = [("on", f"light {i}") if i % 2 else ("off", f"lamp {i}") for i in range(8)]
    lines = [",".join(row if header.startswith("intent") else row[::-1]) for row in rows]
    task = load_files(write("t.csv", "\n".join([header, *lines])))
    assert task.labels == ("off", "on")


def test_named_columns(write: Write) -> None:
    content = "a,b,c,d\n1,x y,u,p\n2,x z,v,q\n3,x w,v,q\n4,x v,v,p\n"
    task = load_files(write("t.csv", content), text_column="c", pair_column="b", label_column="d")
    assert task.labels == ("p", "q")
    assert task.train.pairs is not None
    assert task.train.pairs[0].startswith("x")
    assert not any("guessed" in note for note in task.notes)


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ([10, 2, 1, 2, 10, 1], ("1", "2", "10")),
        ([1.0, 0.0, 1.0, 0.0], ("0", "1")),
        ([True, False, True, False], ("False", "True")),
        (["-1", "1", "0", "0", "1", "-1"], ("-1", "0", "1")),
        (["grade 10", "grade 2", "grade 2", "grade 10"], ("grade 2", "grade 10")),
        (["nan", "inf", "b", "nan", "inf", "b"], ("b", "inf", "nan")),
    ],
)
def test_class_names_in_natural_order(write: Write, labels: list[object], names: tuple[str, ...]) -> None:
    content = rows_json(*[{"text": f"t{i}", "label": label} for i, label in enumerate(labels)])
    assert load_files(write("t.jsonl", content), write("v.jsonl", content)).labels == names


@settings(deadline=None, max_examples=60)
@given(st.lists(st.one_of(st.integers().map(str), st.text(max_size=6))))
def test_natural_order_is_a_total_order(names: list[str]) -> None:
    assert sorted(names, key=natural_key) == sorted(names, key=lambda name: natural_key(name))


def test_class_names_are_those_of_csv_and_json() -> None:
    assert {class_name(value) for value in (1, 1.0, "1", "1.0", " 1 ")} == {"1"}
    assert class_name("01") == "01"
    assert class_name("1.5") == "1.5"


def test_fractions_are_a_regression(write: Write) -> None:
    content = rows_json(*[{"text": f"t{i}", "score": i / 7} for i in range(30)])
    task = load_files(write("t.jsonl", content))
    assert (task.kind, task.labels, task.metric, task.num_labels) == ("regression", (), "pearson", 1)
    assert task.majority_score == 0.0
    assert any("taken as a regression" in note for note in task.notes)


def test_few_fractions_are_classes_and_it_is_told(write: Write) -> None:
    content = rows_json(*[{"text": f"t{i}", "score": (i % 4) / 2} for i in range(40)])
    task = load_files(write("t.jsonl", content))
    assert task.labels == ("0", "0.5", "1", "1.5")
    assert any("taken as a classification; ask for the kind regression" in note for note in task.notes)
    assert load_files(write("t.jsonl", content), kind="regression", metric="spearman").metric == "spearman"


def test_validation_is_split_off_by_class(write: Write) -> None:
    content = rows_json(*[{"text": f"t{i}", "label": "rare" if i % 10 == 0 else "often"} for i in range(200)])
    path = write("t.jsonl", content)
    task, again, other = load_files(path), load_files(path), load_files(path, seed=1)
    assert Counter(task.validation.labels) == {0: 27, 1: 3}
    assert not set(task.train.texts) & set(task.validation.texts)
    assert task == again
    assert task.fingerprint != other.fingerprint
    assert "no validation given: 30 of 200 examples of train were split off" in task.notes


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 4), min_size=3, max_size=80), st.floats(0.01, 0.5), st.integers(0, 99))
def test_split_off_is_a_partition(labels: list[int], share: float, seed: int) -> None:
    whole = Split(texts=[str(i) for i in range(len(labels))], pairs=None, labels=labels)
    if max(Counter(labels).values()) < 2:
        with pytest.raises(TaskError, match="too few to split validation off"):
            split_off(whole, share, seed, stratify=True)
        return
    rest, part = split_off(whole, share, seed, stratify=True)
    assert sorted(map(int, rest.texts + part.texts)) == list(range(len(labels)))
    assert set(rest.labels) == set(labels)
    assert len(part) >= 1


TEN = [{"text": f"t{i}", "label": "ab"[i % 2]} for i in range(10)]
BAD = {
    "empty": ("t.csv", "", "t.csv: is empty"),
    "blank": ("t.csv", " \n\n", "t.csv: is empty"),
    "header only": ("t.csv", "text,label\n", r"t.csv: has no rows \(columns: text, label\)"),
    "suffix": ("t.xlsx", "x", "unknown suffix '.xlsx'; give a file of one of: .csv, "),
    "latin-1": ("t.csv", FOUR.encode() + b"caf\xe9,pos\n", r"line 6: not UTF-8 \(byte 0xe9 at offset 65\).*iconv"),
    "utf-16": ("t.csv", FOUR.encode("utf-16"), "is UTF-16, UTF-8 is needed; save it as 'CSV UTF-8'"),
    "no label": ("t.csv", "text,author\na b,c\nd e,f\n", "tell the label column from text, author; .*--label-column"),
    "no text": ("t.csv", "id,kind,label\n1,2,a\n3,4,b\n", "the text column from id, kind, label; .*--text-column"),
    "one class": ("t.csv", "text,label\na,x\nb,x\n", r"'label' holds one class only \('x'\)"),
    "empty text": ("t.csv", "text,label\na,x\n ,y\n,x\n", r"line 3: empty text in column 'text' \(2 of 3 rows"),
    "twice": ("t.csv", "text,label,text\na,b,c\n", "duplicate column names: text"),
    "twice json": ("t.jsonl", '{"text": "a", "text": "b"}', "line 1: malformed JSON .duplicate column names: text"),
    "json": ("t.jsonl", '{"text": "a", "label": 1}\n\n{"text": ', "t.jsonl, line 3: malformed JSON"),
    "json list": ("t.json", '[{"text": "a"}, 3]', "t.json, row 2: a JSON int, an object is needed"),
    "json broken list": ("t.json", '[{"text": "a"}', "t.json: malformed JSON"),
    "json scalar": ("t.jsonl", '"a"', "line 1: a JSON str, an object is needed"),
    "null label": ("t.jsonl", rows_json(*TEN, {"text": "x", "label": None}), r"line 11: no label .* \(1 of 11 rows"),
    "absent label": ("t.jsonl", rows_json(*TEN, {"text": "x"}), "line 11: no label in column 'label'"),
    "blank label": ("t.csv", FOUR + "x,\n", r"t.csv, line 6: no label in column 'label' \(1 of 5 rows"),
    "null text": ("t.jsonl", rows_json(*TEN, {"text": None, "label": "a"}), "line 11: empty text"),
    "list text": ("t.jsonl", rows_json(*TEN, {"text": ["x"], "label": "a"}), "line 11: .* holds a list, a text is"),
    "surrogate": ("t.jsonl", rows_json(*TEN, {"text": "\ud800", "label": "a"}), "line 11: .* half a surrogate pair"),
    "parquet": ("t.parquet", "text,label\n", "t.parquet: cannot be read as Parquet"),
    "classes": ("t.csv", "text,label\na,1\nb,2\nc,3\nd,3\ne,4\n", "holds 4 classes in 5 rows; .* the kind regression"),
    "fields": ("t.csv", "text,label\na,b,c\n", "line 2: 3 fields where the header has 2"),
    "open quote": ("t.csv", 'text,label\n"a,b\nc,d\n', "t.csv, line 2: unexpected end of data"),
    "few": ("t.csv", "text,label\na,x\nb,y\n", "2 examples are too few to split validation off"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "content", "message"), BAD.values(), ids=BAD)
def test_bad_files(write: Write, name: str, content: str | bytes, message: str) -> None:
    with pytest.raises(TaskError, match=message) as caught:
        load_files(write(name, content))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("value", ["x", "nan", "inf", "-inf"])
def test_bad_targets(write: Write, value: str) -> None:
    content = "text,score\n" + "".join(f"t{i},{i / 3}\n" for i in range(20)) + f"last,{value}\n"
    with pytest.raises(TaskError, match=f"t.csv, line 22: '{value}' in column 'score' is not a finite number"):
        load_files(write("t.csv", content))


def test_missing_files(write: Write, tmp_path: Path) -> None:
    write("train.csv", FOUR)
    with pytest.raises(TaskError, match=r"trian.csv: no such file; did you mean 'train.csv'?"):
        load_files(tmp_path / "trian.csv")
    with pytest.raises(TaskError, match=r"no such file; looked in .*nowhere"):
        load_files(tmp_path / "nowhere" / "a.csv")
    with pytest.raises(TaskError, match="is a folder, a file is needed"):
        load_files(tmp_path)


def test_columns_that_are_not_there(write: Write) -> None:
    path = write("t.csv", FOUR)
    with pytest.raises(TaskError, match=re.escape("no column 'Txt'; did you mean 'text'? (columns: text, label)")):
        load_files(path, text_column="Txt")
    with pytest.raises(TaskError, match=r"v.csv: no column 'label'"):
        load_files(path, write("v.csv", "text\na\n"))
    with pytest.raises(TaskError, match="must be different columns, got text, text"):
        load_files(path, text_column="text", label_column="text")


@pytest.mark.parametrize("split", ["validation", "test"])
def test_labels_unseen_in_training(write: Write, split: str) -> None:
    other = write("o.csv", "text,label\na,pos\nb,mixed\n")
    files = {"validation": write("v.csv", FOUR), split: other}
    with pytest.raises(TaskError, match=r"o.csv, line 3: label 'mixed' does not occur in training \(known: neg, pos\)"):
        load_files(write("t.csv", FOUR), files["validation"], files.get("test"))


def test_settings(write: Write) -> None:
    path = write("t.csv", FOUR)
    with pytest.raises(
        TaskError,
        match="kind is 'ranking'; it must be classification, regression, tagging, multi_label or question_answering",
    ):
        load_files(path, kind="ranking")  # type: ignore[arg-type]  # a wrong value is the point
    with pytest.raises(TaskError, match="'pearson' is for regression"):
        load_files(path, metric="pearson")


def test_excels_separator_line(write: Write) -> None:
    path = write("a.csv", "sep=;\r\ntext;label\r\ngood film;1\r\nbad film;0\r\nfine, film;1\r\nsad film;0\r\n")
    assert "fine, film" in load_files(path).train.texts + load_files(path).validation.texts


def test_long_fields(write: Write) -> None:
    path = write("a.csv", "text,label\n" + f"{'word ' * 40_000},1\nshort,0\nother,1\nlast,0\n")
    assert max(map(len, load_files(path, path).train.texts)) > 131_072


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "text;score\na;1,5\nb;2,0\nc;2,5\n", "decimal commas"),
        ("a.jsonl", "[" * 100_000, "malformed JSON|nested too deeply"),
        (
            "a.jsonl",
            '{"text": "a", "label": {"x": 1}}\n{"text": "b", "label": {"x": 2}}\n',
            "holds a dict, a single label",
        ),
    ],
)
def test_more_bad_files(write: Write, name: str, content: str, message: str) -> None:
    with pytest.raises(TaskError, match=message):
        load_files(write(name, content))


def test_names_that_the_system_refuses(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="cannot be read: File name too long"):
        load_files(tmp_path / ("a" * 300 + ".csv"))


def test_constant_targets(write: Write) -> None:
    with pytest.raises(TaskError, match="one value only"):
        load_files(write("a.csv", "text,score\na,1\nb,1\nc,1\nd,1\n"), kind="regression")


@pytest.mark.parametrize(
    ("rows", "more", "classes"),
    [
        ("a,fraud\nb,legit\nc,legit\nd,legit\n", {}, ("legit", "fraud")),
        ("a,fraud\nb,fraud\nc,legit\nd,fraud\n", {}, ("fraud", "legit")),
        ("a,fraud\nb,legit\nc,legit\nd,legit\n", {"positive": "legit"}, ("fraud", "legit")),
    ],
)
def test_f1_is_of_the_rarer_class_or_the_named_one_and_says_so(
    write: Write, rows: str, more: dict[str, str], classes: tuple[str, ...]
) -> None:
    path = write("t.csv", "text,label\n" + rows)
    task = load_files(path, path, metric="f1", **more)
    assert task.labels == classes
    assert any(f"f1 is of the class {classes[1]!r}" in note for note in task.notes)
    # Always answering the largest class scores nothing, unless that is the one that counts.
    assert (task.majority_score > 0) is bool(more)


def test_a_positive_class_that_is_none_is_refused(write: Write) -> None:
    path = write("t.csv", FOUR)
    with pytest.raises(TaskError, match="'maybe': is no class"):
        load_files(path, path, metric="f1", positive="maybe")
    with pytest.raises(TaskError, match="is for --metric f1 and two classes"):
        load_files(path, path, positive="pos")


def test_names_of_classes_that_are_seldom_meant_are_told(write: Write) -> None:
    path = write("t.csv", "text,label\na,positive\nb,Positive\nc,none\nd,positive\ne,none\nf,Positive\n")
    notes = load_files(path, path).notes
    assert any("'none' counts as a class" in note for note in notes)
    assert any("'Positive' and 'positive' are two classes" in note for note in notes)
    assert class_counts(load_files(path, path)) == "positive 2, Positive 2, none 2"


def test_questions_without_a_context_say_what_is_supported(write: Write) -> None:
    row = '{"question": "who?", "answers": {"text": ["Ann"], "answer_start": [0]}}\n'
    with pytest.raises(TaskError, match=r"looks like question answering without a column .context."):
        load_files(write("a.jsonl", row * 4))
