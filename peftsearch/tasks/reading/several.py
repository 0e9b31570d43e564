"""Read tasks with several answers for each example: a tag for each word, or any number of classes.

Words and tags are lists of equal length, in columns such as `tokens` and `ner_tags`; in CSV files they are texts with
spaces between the words. Several classes are a list of names, a list of ones and zeros, a text such as `news|sport`, or
one column of ones and zeros for each class (`--label-column toxic,insult`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from peftsearch.errors import TaskError, one_line
from peftsearch.tasks.kinds import TITLES, Kind
from peftsearch.tasks.metrics import choose_metric
from peftsearch.tasks.reading.build import Tables, Wishes, labelled_tables, parted, refuse_positive
from peftsearch.tasks.reading.classes import class_name, natural_key, odd_names
from peftsearch.tasks.reading.columns import Columns, choose_columns, missing_column
from peftsearch.tasks.reading.faults import ERROR
from peftsearch.tasks.reading.inputs import has_surrogate, holds_tokens, is_null, read_texts
from peftsearch.tasks.reading.sound import sound_rows
from peftsearch.tasks.reading.table import Table
from peftsearch.tasks.task import LabelsSplit, Split, TagSplit, Task

WORDS = ("tokens", "words")
"""Usual names of columns of words."""
TAGS = ("ner_tags", "tags", "labels", "slots", "slot_tags", "pos_tags", "chunk_tags", "label")
"""Usual names of columns of tags, the best guess first."""
SEPARATORS = ("|", ";", ",")
"""Signs between the classes of a text, the first that occurs in the column."""
_ONE, _ZERO = ("1", "1.0", "true"), ("0", "0.0", "false")
OUTSIDE = "O"
"""Tag of words outside all entities."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Form:
    """How the classes of a row are written, which is the same in all rows."""

    sign: str | None = None
    """Sign between the classes of a text; None for one class."""
    n_hot: int | None = None
    """Number of ones and zeros of a list; None for lists of names."""
    texts: bool = False
    """Whether names are texts; numbers among them are faults."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Odd:
    """In place of the classes of a row, a cell that is neither one nor zero."""

    column: str
    cell: str


def kind_of(table: Table, kind: str | None, text: str | None, label: str | None) -> Kind | None:
    """`tagging` or `multi_label`, as the user says or the columns show; None for a task with one answer an example.

    Args:
        table: The training data.
        kind: The user's kind.
        text: The user's column of texts.
        label: The user's column of labels.
    """
    if kind in ("tagging", "multi_label"):
        return kind  # type: ignore[return-value]  # it is one of the two
    if kind is not None:
        return None
    words = text or _first(table, WORDS)
    tags = label or _first(table, TAGS)
    if "input_ids" in table.columns:
        return None
    if words in table.columns and tags in table.columns and _hold(table, words, str) and holds_tokens(table, tags):
        return "tagging"
    several = label is not None and "," in label and label not in table.columns
    if several or (tags in table.columns and holds_tokens(table, tags) and not holds_tokens(table, words or "text")):
        return "multi_label"
    return None


def guess_note(table: Table, kind: Kind, asked: str | None) -> list[str]:
    """A note where the kind was guessed."""
    if asked is not None:
        return []
    return [f"{table.where}: lists of labels: taken as {TITLES[kind]}; --kind says otherwise"]


def columns_of(table: Table, kind: Kind, text: str | None, pair: str | None, label: str | None) -> Columns:
    """The columns of such a task; None means guess.

    Raises:
        TaskError: A named column is missing, or the others cannot be guessed.
    """
    if kind == "multi_label":
        return choose_columns(with_joined(table, label), text, pair, label)
    if pair is not None:
        raise TaskError(f"{table.where}: --pair-column is not for tags; leave it out")
    for name in (text, label):
        if name is not None and name not in table.columns:
            raise TaskError(missing_column(table, name))
    words = text or _first(table, WORDS) or _first(table, ("text", "sentence"))
    tags = label or _first(table, TAGS)
    if words is None or tags is None or words == tags:
        raise TaskError(
            f"{table.where}: cannot tell the words and their tags from {', '.join(table.columns)}; name them with "
            "--text-column and --label-column"
        )
    guessed = f"{table.where}: columns guessed: words {words!r}, tags {tags!r}"
    return Columns(text=words, label=tags, note=guessed if text is None or label is None else None)


def build_several(
    name: str,
    source: str,
    tables: Tables,
    columns: Columns,
    wishes: Wishes,
    class_names: Sequence[str] | None = None,
    notes: Sequence[str] = (),
) -> Task:
    """Build a task with several answers for each example; see `build_task` for the arguments.

    Args:
        name: A short name.
        source: Origin of the data.
        tables: The splits.
        columns: Columns of the tables.
        wishes: The user's choices, with the kind.
        class_names: The classes or tags in order; None takes those of train.
        notes: Earlier notes for the user.

    Raises:
        TaskError: The data cannot be used; the message says where.
    """
    kind = wishes.kind
    assert kind is not None, "the kind is known here"
    metric = choose_metric(kind, wishes.metric)
    refuse_positive(wishes)
    told = [*filter(None, [columns.note]), *notes]
    of = partial(with_joined, label=columns.label)
    validation_table, test = (None if other is None else of(other) for other in (tables.validation, tables.test))
    train = of(tables.train)
    given = labelled_tables(Tables(train=train, validation=validation_table, test=test), columns, told)
    columns.check(train)
    bad = wishes.bad_rows or ERROR
    form, named = form_of(train, columns.label), class_names
    if named is None:
        train, found = sound_rows(train, partial(_named, columns=columns, kind=kind, form=form), bad, told)
        named = _names(found, columns.label, form)
        told.extend(odd_names(train.where, named))
    if len(named) < 2:
        raise TaskError(f"{train.where}: column {columns.label!r} has one class only; at least two are needed")
    given["train"] = train
    read = partial(several_split, columns=columns, kind=kind, labels=tuple(named), form=form)
    splits: dict[str, Split | None] = {
        split: None if table is None else sound_rows(table, read, bad, told)[1] for split, table in given.items()
    }
    own, validation = parted(splits, wishes.seed, told)
    return Task(
        name=name,
        kind=kind,
        labels=tuple(named),
        train=own,
        validation=validation,
        test=splits["test"],
        metric=metric,
        source=source,
        columns=columns,
        notes=tuple(dict.fromkeys(told)),
    )


def several_split(table: Table, columns: Columns, kind: Kind, labels: tuple[str, ...], form: Form) -> Split:
    """Read a split of a task whose classes or tags are known.

    Args:
        table: The split.
        columns: Its columns.
        kind: `tagging` or `multi_label`.
        labels: The classes or tags.
        form: How the classes of a row are written.

    Raises:
        TaskError: A row has no words or texts, or its answers are missing, too many, or not known.
    """
    index = {label: i for i, label in enumerate(labels)}
    words = words_of(table, columns.text) if kind == "tagging" else None
    answers = _answers(table, columns, form, words)
    known = [[_known(table, i, name, index, columns.label) for name in row] for i, row in enumerate(answers)]
    if words is not None:
        return TagSplit.of(words, known)
    texts = read_texts(table, columns.text)
    pairs = None if columns.pair is None else read_texts(table, columns.pair)
    sets = [[int(k in own) for k in range(len(labels))] for own in map(set, known)]
    return LabelsSplit(texts=texts, pairs=pairs, labels=[0] * len(texts), sets=sets)


def separate_split(table: Table, columns: Columns, kind: Kind, labels: tuple[str, ...]) -> Split:
    """Read a split of its own for a task whose classes or tags are known; faulty rows are refused together.

    Raises:
        TaskError: A row is faulty.
    """
    table = with_joined(table, columns.label)
    columns.check(table)
    read = partial(several_split, columns=columns, kind=kind, labels=labels, form=form_of(table, columns.label))
    return sound_rows(table, read, None, [])[1]


def form_of(table: Table, column: str) -> Form:
    """How the classes of the rows of a table are written."""
    values = table.columns[column]
    sign = next((s for s in SEPARATORS if any(isinstance(v, str) and s in v for v in values)), None)
    lists = [value for value in values if isinstance(value, list)]
    sizes = {len(value) for value in lists}
    numbers = {number for value in lists for number in value if isinstance(number, int | float)}
    is_hot = len(lists) == len(values) > 0 and len(sizes) == 1 and sizes != {1} and numbers == {0, 1}
    texts = any(isinstance(name, str) for value in values for name in (value if isinstance(value, list) else [value]))
    return Form(sign=sign, n_hot=sizes.pop() if is_hot else None, texts=texts)


def words_of(table: Table, column: str) -> list[list[str]]:
    """The words of every row: a list of texts, or a text that is split at white space.

    Raises:
        TaskError: A row has none, or one that is empty or no text.
    """
    if column not in table.columns:
        raise TaskError(missing_column(table, column))
    found = []
    for i, value in enumerate(table.columns[column]):
        given = _list(value) if isinstance(value, list | str) else []
        words = [word for word in given if isinstance(word, str)]
        if len(words) < len(given) or not isinstance(value, list | str):
            raise TaskError(f"{table.at(i)}: column {column!r} does not hold a list of words; correct the row")
        if not words or not all(word.strip() for word in words):
            raise TaskError(f"{table.at(i)}: no words, or an empty one, in column {column!r}; correct the row")
        found.append(words)
    flat = Table(where=table.where, columns={column: [" ".join(w) for w in found]}, lines=table.lines, unit=table.unit)
    read_texts(flat, column)  # refuses what is no Unicode
    return found


def with_joined(table: Table, label: str | None) -> Table:
    """The table with a column of the names of the classes that a row has, where the label names several columns.

    Raises:
        TaskError: A column is missing.
    """
    if label is None or label in table.columns or "," not in label:
        return table
    names = [name.strip() for name in label.split(",")]
    for name in names:
        if name not in table.columns:
            raise TaskError(missing_column(table, name))
    joined: list[object] = []
    for i in range(len(table)):
        cells = {name: str(table.columns[name][i]).strip().lower() for name in names}
        odd = next((name for name, cell in cells.items() if cell not in (*_ONE, *_ZERO)), None)
        if odd is not None:
            joined.append(_Odd(column=odd, cell=cells[odd]))
        else:
            joined.append([name for name, cell in cells.items() if cell in _ONE])
    rest = {name: values for name, values in table.columns.items() if name not in names}
    return replace(table, columns={**rest, label: joined})


def _names(answers: list[list[str]], column: str, form: Form) -> tuple[str, ...]:
    """All classes or tags: columns in their own order, the outside tag first, the others in natural order."""
    if form.n_hot is not None:
        return tuple(map(str, range(form.n_hot)))
    found = {name for row in answers for name in row}
    columns = [name.strip() for name in column.split(",")]
    if len(columns) > 1 and found <= set(columns):
        return tuple(columns)
    return tuple(sorted(found, key=lambda name: (name != OUTSIDE, natural_key(name))))


def _named(table: Table, columns: Columns, kind: Kind, form: Form) -> list[list[str]]:
    """The names of the tags or classes of every row."""
    return _answers(table, columns, form, words_of(table, columns.text) if kind == "tagging" else None)


def _answers(table: Table, columns: Columns, form: Form, words: list[list[str]] | None) -> list[list[str]]:
    """The names of the tags of the words of every row, or of the classes where there are no words."""
    if words is None:
        return _sets(table, columns.label, form)
    return [_tags(table, i, columns.label, len(row), form) for i, row in enumerate(words)]


def _tags(table: Table, i: int, column: str, n_words: int, form: Form) -> list[str]:
    value = table.columns[column][i]
    if is_null(value):
        raise TaskError(f"{table.at(i)}: no tags in column {column!r}; tag the row or leave it out")
    tags = _list(value) if isinstance(value, list | str) else None
    if tags is None or any(_is_odd(tag, form) for tag in tags):
        raise TaskError(f"{table.at(i)}: column {column!r} does not hold a list of tags; correct the row")
    if len(tags) != n_words:
        raise TaskError(f"{table.at(i)}: {len(tags)} tags for {n_words} words; there must be one for each")
    return [class_name(tag) for tag in tags]


def _sets(table: Table, column: str, form: Form) -> list[list[str]]:
    """The names of the classes of every row."""
    found = []
    for i, value in enumerate(table.columns[column]):
        if value is None or isinstance(value, dict) or (isinstance(value, float) and value != value):
            raise TaskError(f"{table.at(i)}: no label in column {column!r}; label the row (an empty list has none)")
        if isinstance(value, _Odd):
            raise TaskError(
                f"{table.at(i)}: column {value.column!r} holds {one_line(value.cell, 40)!r}, no 0 or 1; correct it"
            )
        if isinstance(value, list) and form.n_hot is not None:
            if len(value) != form.n_hot or not set(value) <= {0, 1}:
                raise TaskError(f"{table.at(i)}: column {column!r} needs {form.n_hot} ones and zeros; correct the row")
            found.append([str(k) for k, has in enumerate(value) if has])
        elif isinstance(value, list):
            if any(_is_odd(name, form) for name in value):
                raise TaskError(f"{table.at(i)}: column {column!r} does not hold a list of classes; correct the row")
            found.append(list(dict.fromkeys(class_name(name) for name in value)))
        else:
            if _is_odd(value, form) and not is_null(value):
                raise TaskError(f"{table.at(i)}: column {column!r} does not hold a list of classes; correct the row")
            text = str(value).strip()
            parts = _json(text) if text.startswith("[") else text.split(form.sign) if form.sign else [text]
            found.append([name for part in parts if (name := class_name(str(part).strip()))])
    return found


def _is_odd(name: object, form: Form) -> bool:
    """Whether something in a list is no name of a class, as those of the other rows are."""
    if isinstance(name, list | dict) or is_null(name) or has_surrogate(str(name)):
        return True
    return form.texts and not isinstance(name, str)


def _list(value: list[object] | str) -> list[object]:
    """A list as it is, or one written as JSON, or a text split at white space."""
    if isinstance(value, list):
        return value
    text = value.strip()
    return _json(text) if text.startswith("[") else list(text.split())


def _json(text: str) -> list[object]:
    try:
        found = json.loads(text)
    except ValueError:
        return list(text.split())
    return found if isinstance(found, list) else [found]


def _known(table: Table, i: int, name: str, index: dict[str, int], column: str) -> int:
    if name not in index:
        raise TaskError(
            f"{table.at(i)}: {one_line(name, 60)!r} in column {column!r} is not in training; correct the row or leave "
            "it out"
        )
    return index[name]


def _first(table: Table, names: Sequence[str]) -> str | None:
    lowered = {name.lower(): name for name in table.columns}
    return next((lowered[name] for name in names if name in lowered), None)


def _hold(table: Table, column: str | None, kind: type) -> bool:
    """Whether a column holds lists of one kind of values."""
    values = table.columns.get(column or "", [])
    return bool(values) and all(isinstance(v, list) and all(isinstance(x, kind) for x in v) for v in values)
