"""Predict a label and a score, or a text, for every row of a file or every image of a folder.

The output has the input's rows in their order, all its columns, and two more: `predicted_label`, the class, with
`predicted_score`, its probability; for a regression only `predicted_score`, in the unit of the training targets; for a
generation only `predicted_text`, written greedily. Tags are lists, `predicted_tags` and `predicted_scores`, one for
each word; of several classes `predicted_labels` lists those of a probability of at least a half, and
`predicted_scores` the probabilities of all, in the order of the training. Answers are `predicted_answer`, empty where
the context has none, `predicted_start`, its first character, and `predicted_score`, its probability. A folder has one
column, `image`: the path of each in it.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import torch

from peftsearch.engine.scoring import predictions_of, require_finite
from peftsearch.errors import ConfigError, Diverged, TaskError, one_line
from peftsearch.files import replacing
from peftsearch.options import InputColumns, given
from peftsearch.tasks.encoding.encode import require_inputs
from peftsearch.tasks.encoding.spans import EncodedSpans, best_spans
from peftsearch.tasks.encoding.tags import EncodedTags
from peftsearch.tasks.kinds import QUESTIONS
from peftsearch.tasks.reading.columns import choose_texts
from peftsearch.tasks.reading.images import IMAGE, read_images
from peftsearch.tasks.reading.inputs import input_split
from peftsearch.tasks.reading.several import OUTSIDE, words_of
from peftsearch.tasks.reading.sound import sound_rows
from peftsearch.tasks.reading.table import Table, read_table
from peftsearch.tasks.task import AnswerSplit, Split, TagSplit
from peftsearch.trainer.options import PredictOptions, check_predict_options
from peftsearch.trainer.texts import written_texts
from peftsearch.trainer.trained import Trained, load_trained

if TYPE_CHECKING:
    import pandas as pd

LABEL, SCORE, TEXT = "predicted_label", "predicted_score", "predicted_text"
TAGS, LABELS, SCORES = "predicted_tags", "predicted_labels", "predicted_scores"
ANSWER, START = "predicted_answer", "predicted_start"


def predict(options: PredictOptions) -> int:
    """Read, predict, write.

    Returns:
        The number of predictions.

    Raises:
        PeftSearchError: The folder, the model, the input or the output cannot be used; nothing is written then.
    """
    check_predict_options(options)
    if options.input.is_dir():
        return _predict_images(options)
    table = read_table(options.input)
    require_free(table)
    require_writable(options.output, table)
    trained = load_trained(options)
    _write(options.output, predicted(trained, table, options.columns), table.arrow)
    return len(table)


def table_of(frame: pd.DataFrame) -> Table:
    """A DataFrame as the rows to predict.

    Raises:
        TaskError: It has no rows.
    """
    if not len(frame):
        raise TaskError("predict: there are no rows")
    columns = {str(name): frame[name].tolist() for name in frame.columns}
    table = Table(where="rows", columns=columns, lines=list(range(1, len(frame) + 1)), unit="row")
    require_free(table)
    return table


def require_free(table: Table) -> None:
    """Refuse a table that has a column of the output already.

    Raises:
        TaskError: It has one.
    """
    for name in (LABEL, SCORE, TEXT, TAGS, LABELS, SCORES, ANSWER, START):
        if name in table.columns:
            raise TaskError(f"{table.where}: has a column {name!r} already, which the output writes; rename it")


def predicted(trained: Trained, table: Table, chosen: InputColumns) -> dict[str, list[Any]]:
    """The columns of a table, and the predictions beside them.

    Args:
        trained: A finished training.
        table: The rows to predict.
        chosen: The columns that the model reads; None means those of the training.

    Raises:
        TaskError: The rows do not suit the training, or an output is not a finite number.
    """
    if trained.has_images:
        raise TaskError(f"{table.where}: is a table, {trained.path} was trained on images; give a folder of them")
    trained.check_columns(chosen)
    if trained.is_generation:
        return {**table.columns, TEXT: written_texts(trained, table, chosen.prompt_column)}
    if trained.kind == "tagging":
        column = chosen.text_column or (trained.columns.text if trained.columns else "tokens")
        _, words = sound_rows(table, partial(words_of, column=column), None, [])
        split: Split = TagSplit.of(words, [[0] * len(row) for row in words])
        return {**table.columns, **_predictions(trained, split, table.where)}
    text, pair = choose_texts(table, chosen.text_column, chosen.pair_column, trained.columns)
    if (pair is not None) != trained.record.task.pairs:
        wanted = "pairs of texts: name --pair-column" if pair is None else "single texts: leave --pair-column out"
        raise TaskError(f"{table.where}: {trained.path} was trained on {wanted}")
    _, read = sound_rows(table, partial(input_split, text=text, pair=pair), None, [])
    if trained.kind == QUESTIONS and read.pairs is not None:
        read = AnswerSplit.asked(read.texts, read.pairs)
    return {**table.columns, **_predictions(trained, read, table.where)}


def _predict_images(options: PredictOptions) -> int:
    if given(options.columns, "text_column", "pair_column"):
        raise ConfigError("--text-column and --pair-column are not for images; leave them out")
    images = read_images(options.input)
    trained = load_trained(options)
    made = _predictions(trained, images, str(options.input))
    _write(options.output, {IMAGE: list(images.texts), **made})
    return len(images)


def _predictions(trained: Trained, split: Split, where: str) -> dict[str, list[Any]]:
    require_inputs(where, split, trained.loaded.tokenizer)
    logits, encoded = trained.outputs(split)
    n_words = [len(row) for row in encoded.words] if isinstance(encoded, EncodedTags) else []
    if isinstance(encoded, EncodedSpans):
        return _answers(trained, logits, encoded)
    try:
        values = predictions_of(logits, trained.kind, n_words)
    except Diverged as error:
        raise TaskError(f"{trained.path}: {error}") from error
    if trained.is_regression:
        return {SCORE: trained.targets_of(values)}
    if trained.kind == "multi_label":
        names = [[name for name, has in zip(trained.labels, row, strict=True) if has] for row in values]
        return {LABELS: names, SCORES: torch.sigmoid(logits).tolist()}
    probabilities = torch.softmax(logits, dim=-1).max(dim=-1).values
    if isinstance(encoded, EncodedTags):
        assert isinstance(split, TagSplit), "encoded as tags"
        scores = [list(own) for own in probabilities.split_with_sizes(n_words)]
        return _of_words(trained.labels, split, encoded.words, values, scores)
    return {LABEL: [trained.labels[int(i)] for i in values], SCORE: probabilities.tolist()}


def _answers(trained: Trained, logits: torch.Tensor, encoded: EncodedSpans) -> dict[str, list[Any]]:
    """The most probable answers."""
    try:
        require_finite(logits)
    except Diverged as error:
        raise TaskError(f"{trained.path}: {error}") from error
    found = best_spans(logits, encoded)
    return {
        ANSWER: [span.text for span in found],
        START: [span.start for span in found],
        SCORE: [span.probability for span in found],
    }


def _of_words(
    labels: tuple[str, ...],
    split: TagSplit,
    seen: list[list[int]],
    values: list[list[int]],
    scores: list[list[torch.Tensor]],
) -> dict[str, list[Any]]:
    """A tag and its probability for every word; words that were cut are outside all entities, with none."""
    outside = OUTSIDE if OUTSIDE in labels else labels[0]
    tags, probabilities = [], []
    for words, places, own, each in zip(split.words, seen, values, scores, strict=True):
        row: list[str] = [outside] * len(words)
        sure: list[float | None] = [None] * len(words)
        for place, tag, score in zip(places, own, each, strict=True):
            row[place], sure[place] = labels[tag], float(score)
        tags.append(row)
        probabilities.append(sure)
    return {TAGS: tags, SCORES: probabilities}


def _write(path: Path, columns: dict[str, list[Any]], own: Any = None) -> None:
    """Write a table, whole or not at all; values stay what they were.

    Args:
        path: The file.
        columns: What to write.
        own: The Arrow table that some columns came from; None for other formats.

    Raises:
        ConfigError: The disk is full, read-only or forbidden.
    """
    suffix = path.suffix.lower()
    try:
        with replacing(path) as part:
            if suffix == ".parquet":
                from pyarrow import parquet  # type: ignore[import-untyped]  # it ships no types

                parquet.write_table(_arrow(path, columns, own), part)
                return
            with part.open("w", encoding="utf-8", newline="") as file:
                rows = zip(*columns.values(), strict=True)
                if suffix == ".jsonl":
                    for row in rows:
                        values = {name: _bare(value) for name, value in zip(columns, row, strict=True)}
                        file.write(_json_line(values))
                else:
                    mark = "\t" if suffix == ".tsv" else ","
                    writer = csv.writer(_Lines(file), delimiter=mark, lineterminator="\r\n")
                    writer.writerow(columns)
                    writer.writerows([_cell(value) for value in row] for row in rows)
    except OSError as error:
        raise ConfigError(f"--output {path}: cannot be written: {error.strerror or error}") from error


def require_writable(path: Path, table: Table) -> None:
    """Check before the model runs that a format can hold the input's columns.

    Raises:
        ConfigError: Parquet cannot, as a column mixes types, or CSV cannot, as a text is no Unicode.
    """
    suffix = path.suffix.lower()
    if suffix != ".jsonl":
        for name, values in table.columns.items():
            try:
                name.encode()
                if suffix != ".parquet":
                    "".join(str(_cell(value)) for value in values if isinstance(value, str | list | dict)).encode()
            except UnicodeEncodeError:
                raise ConfigError(
                    f"--output {path}: column {one_line(name, 60)!r} holds half a surrogate pair, which no text file "
                    "can hold; give a file ending in .jsonl"
                ) from None
    if suffix == ".parquet":
        _arrow(path, table.columns, table.arrow)


def _arrow(path: Path, columns: Mapping[str, list[Any]], own: Any = None) -> Any:
    """The columns as an Arrow table; those that came from Parquet stay what they were."""
    import pyarrow as pa

    arrays = {}
    for name, values in columns.items():
        if own is not None and name in own.column_names:
            arrays[name] = own.column(name)
            continue
        try:
            arrays[name] = pa.array(values)
        except (pa.ArrowException, OverflowError, UnicodeError) as error:
            raise ConfigError(
                f"--output {path}: Parquet cannot hold column {one_line(name, 60)!r} ({one_line(error, 100)}); give a "
                "file ending in .jsonl or .csv"
            ) from error
    return pa.table(arrays)


def _json_line(values: dict[str, Any]) -> str:
    """A line of JSON; half a surrogate pair, which UTF-8 cannot hold, is escaped as it was in the input."""
    line = json.dumps(values, ensure_ascii=False, default=str)
    try:
        line.encode()
    except UnicodeEncodeError:
        line = json.dumps(values, default=str)
    return line + "\n"


class _Lines:
    """A text file whose lines end with a line feed alone.

    The writer of CSV puts into quotes what ends its own lines: it is told to end them with both signs, so that a lone
    carriage return in a cell does not end a row.
    """

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def write(self, line: str) -> object:
        """Write a line that ends with both signs."""
        return self._file.write(line.removesuffix("\r\n") + "\n")


def _bare(value: Any) -> Any:
    """A value for JSON, which has no NaN."""
    if isinstance(value, list):
        return [_bare(each) for each in value]
    if isinstance(value, dict):
        return {key: _bare(each) for key, each in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _cell(value: Any) -> Any:
    """A value for CSV: nothing for None, JSON for lists and mappings."""
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False, default=str)
    return value
