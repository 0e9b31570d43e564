"""Read what a model reads from the columns of a table: texts, tokens, or images."""

from __future__ import annotations

import math
from pathlib import Path

from peftsearch.errors import TaskError
from peftsearch.tasks.reading.table import Table
from peftsearch.tasks.task import ImageSplit, Split, TokenSplit

TOKENS, MASK, SEGMENTS = "input_ids", "attention_mask", "token_type_ids"
"""Columns of examples that are tokenised already."""


def input_split(
    table: Table,
    text: str,
    pair: str | None,
    labels: list[int] | list[float] | None = None,
    tokens: bool | None = None,
) -> Split:
    """Read texts, or tokens where the column holds lists of ids.

    Args:
        table: The table.
        text: Column of the text, or of the tokens.
        pair: Column of the second text; None for single texts.
        labels: Class indices or targets; None sets them to 0.
        tokens: Whether the column holds lists of ids; None looks.

    Raises:
        TaskError: A text or a list of tokens is missing or malformed.
    """
    labels = [0] * len(table) if labels is None else labels
    if holds_tokens(table, text) if tokens is None else tokens:
        return _token_split(table, text, labels)
    pairs = None if pair is None else read_texts(table, pair)
    return Split(texts=read_texts(table, text), pairs=pairs, labels=labels)


def holds_tokens(table: Table, column: str) -> bool:
    """Whether a column holds lists of token ids, in most rows at least."""
    values = table.columns.get(column, [])
    return 2 * sum(isinstance(value, list) for value in values) > len(values)


def _token_split(table: Table, column: str, labels: list[int] | list[float]) -> TokenSplit:
    """Read tokenised examples; what the attention mask leaves out is padding."""
    masks, segments = table.columns.get(MASK), table.columns.get(SEGMENTS)
    ids: list[list[int]] = []
    kinds: list[list[int]] = []
    for i, value in enumerate(table.columns[column]):
        row = _numbers(table, i, column, value)
        mask = [1] * len(row) if masks is None else _numbers(table, i, MASK, masks[i])
        kind = [0] * len(row) if segments is None else _numbers(table, i, SEGMENTS, segments[i])
        if not len(row) == len(mask) == len(kind) or not any(mask):
            raise TaskError(f"{table.at(i)}: {column}, {MASK} and {SEGMENTS} must be equally long, and not all padding")
        kept = [at for at, shown in enumerate(mask) if shown]
        ids.append([row[at] for at in kept])
        kinds.append([kind[at] for at in kept])
    return TokenSplit(
        texts=[table.at(i) for i in range(len(table))],
        pairs=None,
        labels=labels,
        input_ids=ids,
        token_type_ids=None if segments is None else kinds,
    )


def _numbers(table: Table, i: int, column: str, value: object) -> list[int]:
    if not isinstance(value, list) or not all(isinstance(n, int) and n >= 0 for n in value):
        raise TaskError(f"{table.at(i)}: column {column!r} does not hold a list of whole numbers; correct the row")
    return value


def read_texts(table: Table, column: str) -> list[str]:
    """The texts of a column.

    Raises:
        TaskError: A text is missing, is not a text, or cannot be written as UTF-8.
    """
    values = table.columns[column]
    for i, value in enumerate(values):
        if is_null(value):
            raise TaskError(f"{table.at(i)}: empty text in column {column!r}; fill the row or leave it out")
        if not isinstance(value, str | int | float):
            raise TaskError(
                f"{table.at(i)}: column {column!r} holds a {type(value).__name__}, a text is needed; name another"
            )
        if isinstance(value, str) and has_surrogate(value):
            raise TaskError(f"{table.at(i)}: column {column!r} holds half a surrogate pair (\\ud8..); correct the text")
    return [str(value) for value in values]


def has_surrogate(text: str) -> bool:
    """Whether a text has half a surrogate pair: it is not valid UTF-8, and tokenizers fail on it."""
    return any("\ud800" <= letter <= "\udfff" for letter in text)


def is_null(value: object) -> bool:
    """Whether a cell is empty: None, NaN, or blank."""
    return value is None or (isinstance(value, float) and math.isnan(value)) or str(value).strip() == ""


def image_split(table: Table, column: str, labels: list[int] | list[float]) -> ImageSplit:
    """Read the images of a column: mappings with `bytes` or else a `path`, like undecoded images of `datasets`.

    Raises:
        TaskError: An image is missing or cannot be read.
    """
    names, images = [], []
    for i, value in enumerate(table.columns[column]):
        content, path = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (None, None)
        if content is None and not path:
            raise TaskError(f"{table.at(i)}: no image in column {column!r}; fill the row or leave it out")
        images.append(read_image(Path(str(path))) if content is None else bytes(content))
        names.append(str(path) if content is None else table.at(i))
    return ImageSplit(texts=names, pairs=None, labels=labels, images=images)


def read_image(file: Path) -> bytes:
    """Read the bytes of an image file.

    Raises:
        TaskError: The file cannot be read.
    """
    try:
        return file.read_bytes()
    except OSError as error:
        raise TaskError(f"{file}: cannot be read: {error.strerror or error}") from error
