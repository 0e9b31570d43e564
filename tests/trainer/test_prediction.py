"""`peftsearch evaluate` and `peftsearch predict`: formats, regressions, and what they refuse."""

import csv
import datetime
import io
import json

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.runs import call, refused

TEXTS = ["the film was good", "a bad song", "it is a sad old book"]


@pytest.fixture
def texts(tmp_path):
    path = tmp_path / "texts.jsonl"
    path.write_text("\n".join(json.dumps({"text": text, "id": i}) for i, text in enumerate(TEXTS)))
    return path


def read(path):
    if path.suffix == ".parquet":
        return pd.read_parquet(path)
    if path.suffix == ".jsonl":
        return pd.read_json(path, lines=True)
    return pd.read_csv(path, sep="\t" if path.suffix == ".tsv" else ",")


def test_every_format_holds_the_same_rows(trained, texts, tmp_path):
    found = []
    for suffix in ("jsonl", "parquet", "csv"):
        assert call("predict", trained, "--input", texts, "--output", tmp_path / f"out.{suffix}") == 0
        found.append(read(tmp_path / f"out.{suffix}"))
        assert list(found[-1].columns) == ["text", "id", "predicted_label", "predicted_score"]
        assert list(found[-1]["text"]) == TEXTS
        assert set(found[-1]["predicted_label"]) <= {"negative", "positive"}
        assert found[-1]["predicted_score"].between(0.5, 1).all()  # of two classes, the likelier
    for other in found[1:]:
        assert list(other["predicted_score"]) == pytest.approx(list(found[0]["predicted_score"]))


def test_a_regression_predicts_in_the_unit_of_its_targets(calm, tmp_path):
    """Targets of 1000 to 1008, the number of a text's tokens more than 1000: far from a standardised 0."""
    _, model, files = calm
    rows = [line.split(",")[0] for line in files[0].read_text().splitlines()[1:]]
    data = tmp_path / "lengths.csv"
    data.write_text("text,length\n" + "".join(f"{text},{1000 + len(text.split()) / 2}\n" for text in rows))
    output, made = tmp_path / "trained", tmp_path / "made.csv"
    source = ("--model", model, "--train", data, "--label-column", "length", "--kind", "regression")
    assert call("train", "--method", "head", *source, "--steps", "4", "--device", "cpu", "--output", output) == 0
    assert call("predict", output, "--input", data, "--output", made) == 0
    assert "predicted_label" not in read(made)
    assert read(made)["predicted_score"].between(995, 1010).all()


def test_cells_that_end_lines_or_are_no_unicode_are_read_back_as_they_were(trained, tmp_path, capsys):
    given, out = tmp_path / "given.csv", tmp_path / "out.csv"
    wanted = [["text", "more"], ["the film\rwas good", "a\rb"], ["bad", ""]]
    with given.open("w", newline="") as file:
        csv.writer(file, lineterminator="\r\n").writerows(wanted)
    assert call("predict", trained, "--input", given, "--output", out) == 0
    rows = list(csv.reader(io.StringIO(out.read_bytes().decode(), newline="")))
    assert [row[:2] for row in rows] == wanted
    half = tmp_path / "half.jsonl"
    half.write_text('{"text": "the film was good", "x": "\\ud800"}\n')
    assert call("predict", trained, "--input", half, "--output", tmp_path / "out.jsonl") == 0
    assert json.loads((tmp_path / "out.jsonl").read_text())["x"] == "\ud800"
    nested = tmp_path / "nested.jsonl"
    nested.write_text('{"text": "the film was good", "x": ["\\ud800"], "y": [NaN, 1]}\n')
    assert "give a file ending in .jsonl" in refused(
        capsys, "predict", trained, "--input", nested, "--output", out.with_name("o.csv")
    )
    assert call("predict", trained, "--input", nested, "--output", tmp_path / "n.jsonl") == 0
    assert json.loads((tmp_path / "n.jsonl").read_text(), parse_constant=pytest.fail)["y"] == [None, 1]
    for suffix in ("csv", "parquet"):
        line = refused(capsys, "predict", trained, "--input", half, "--output", tmp_path / f"o.{suffix}")
        assert "give a file ending in .jsonl" in line


def test_columns_from_parquet_keep_their_types(trained, tmp_path):
    columns = {
        "text": pa.array(TEXTS),
        "when": pa.array([1, 2, None], pa.timestamp("ns")),
        "took": pa.array([1, 2, 3], pa.duration("ns")),
        "small": pa.array([1, None, 3], pa.int8()),
        "huge": pa.array([2**64 - 1, 0, 1], pa.uint64()),
        "kind": pa.array(["a", "b", "a"]).dictionary_encode(),
        "map": pa.array([[("a", 1)], [], None], pa.map_(pa.string(), pa.int64())),
        "none": pa.array([None] * 3, pa.float64()),
    }
    table = pa.table(columns)
    pq.write_table(table, tmp_path / "given.parquet")
    argv = ("--input", tmp_path / "given.parquet", "--output", tmp_path / "out.parquet")
    assert call("predict", trained, *argv) == 0
    given, made = pq.read_table(tmp_path / "given.parquet"), pq.read_table(tmp_path / "out.parquet")
    assert made.select(given.column_names).equals(given)


VALUES = {
    "big": [9007199254740993, None, 3],
    "day": [datetime.date(2024, 1, 1), datetime.date(3024, 1, 1), None],
    "at": [datetime.datetime(2024, 1, 1, 12, 30, 45, 123456)] * 3,
}


@pytest.mark.parametrize("suffix", ["parquet", "jsonl", "csv"])
def test_every_column_of_the_input_stays_what_it_was(trained, tmp_path, suffix):
    pq.write_table(pa.table({"text": TEXTS, **VALUES}), tmp_path / "in.parquet")
    out = tmp_path / f"out.{suffix}"
    assert call("predict", trained, "--input", tmp_path / "in.parquet", "--output", out) == 0
    if suffix == "parquet":
        assert {name: pq.read_table(out).column(name).to_pylist() for name in VALUES} == VALUES
        return
    if suffix == "jsonl":
        rows = [json.loads(line) for line in out.read_text().splitlines()]
        nothing = None
    else:
        rows, nothing = list(csv.DictReader(out.read_text().splitlines())), ""
    for name, values in VALUES.items():
        wanted = [nothing if value is None else str(value) for value in values]
        assert [row[name] if row[name] in (None, "") else str(row[name]) for row in rows] == wanted


def test_a_format_that_cannot_hold_the_input_is_refused_before_the_model_runs(trained, tmp_path, capsys, monkeypatch):
    rows = [{"text": text, "id": value} for text, value in zip(TEXTS, (1, "two", [3]), strict=True)]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, rows)))
    monkeypatch.setattr("peftsearch.trainer.prediction.load_trained", None)  # not reached
    line = refused(capsys, "predict", trained, "--input", tmp_path / "in.jsonl", "--output", tmp_path / "out.parquet")
    assert "Parquet cannot hold column 'id'" in line
    monkeypatch.undo()
    for suffix in ("jsonl", "csv"):
        argv = ["predict", trained, "--input", tmp_path / "in.jsonl", "--output", tmp_path / f"out.{suffix}"]
        assert call(*argv) == 0
    kept = [json.loads(line)["id"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert kept == [1, "two", [3]]


class TestRefused:
    def test_an_output_that_exists(self, trained, texts, tmp_path, capsys):
        (tmp_path / "out.csv").write_text("precious")
        assert "--overwrite" in refused(capsys, "predict", trained, "--input", texts, "--output", tmp_path / "out.csv")
        assert (tmp_path / "out.csv").read_text() == "precious"

    def test_the_input_as_output(self, trained, texts, capsys):
        argv = ("predict", trained, "--input", texts, "--output", texts, "--overwrite")
        assert "is the input itself" in refused(capsys, *argv)

    @pytest.mark.parametrize(
        ("content", "told"),
        [
            ("", "is empty"),
            ('{"id": 1}\n', "no column 'text'"),
            ('{"text": "a film"}\n{"id": 2}\n', "line 2: empty text in column 'text'"),
            ('{"text": "a film", "predicted_label": "x"}\n', "has a column 'predicted_label' already"),
        ],
    )
    def test_an_input_that_cannot_be(self, trained, content, told, tmp_path, capsys):
        (tmp_path / "in.jsonl").write_text(content)
        out = tmp_path / "out.csv"
        assert told in refused(capsys, "predict", trained, "--input", tmp_path / "in.jsonl", "--output", out)
        assert not out.exists()

    def test_folders_that_hold_no_finished_training(self, tmp_path, trained, capsys):
        assert "holds no training" in refused(capsys, "evaluate", tmp_path)
        (tmp_path / "training.yaml").write_bytes((trained / "training.yaml").read_bytes())
        assert "--resume continues it" in refused(capsys, "evaluate", tmp_path)

    def test_labels_that_were_not_trained_on(self, trained, tmp_path, capsys):
        (tmp_path / "t.csv").write_text("text,label\na film,maybe\na book,positive\n")
        assert "label 'maybe' does not occur in training" in refused(
            capsys, "evaluate", trained, "--test", tmp_path / "t.csv"
        )

    def test_a_model_with_other_weights(self, trained, calm, capsys):
        from tests.runs import save_model

        other = save_model(calm[0] / "other", "roberta")
        capsys.readouterr()  # transformers' own bar
        assert "was trained on weights sha256:" in refused(capsys, "evaluate", trained, "--model", other)
