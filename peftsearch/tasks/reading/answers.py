"""Read extractive question answering: questions, contexts, and answers that stand in their contexts.

Answers are as SQuAD writes them, `{"text": [...], "answer_start": [...]}`, or a text or a list of texts, which are
looked up in the context; a column `answer_start` gives the first character of a single text. No text (`[]`) says that
the context has no answer. In CSV files lists and mappings are JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from peftsearch.errors import TaskError, one_line
from peftsearch.tasks.kinds import QUESTIONS
from peftsearch.tasks.metrics import choose_metric
from peftsearch.tasks.reading.build import Tables, Wishes, labelled_tables, parted, refuse_positive
from peftsearch.tasks.reading.columns import Columns, missing_column
from peftsearch.tasks.reading.faults import ERROR
from peftsearch.tasks.reading.inputs import has_surrogate, is_null, read_texts
from peftsearch.tasks.reading.sound import sound_rows
from peftsearch.tasks.reading.table import Table
from peftsearch.tasks.task import AnswerSplit, Split, Task

QUESTION, CONTEXTS, ANSWERS = "question", ("context", "passage", "paragraph"), ("answers", "answer")
"""Usual names of the columns, the best guess first."""
START = "answer_start"
"""Column of the first character of each answer, where they do not bring it."""
_STARTS = (START, "answer_starts", "start", "starts")
"""Keys of the first characters in mappings."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Answer:
    text: str
    start: int | None
    """Its first character in the context; None where the data do not say."""


def asks_questions(table: Table, kind: str | None, label: str | None) -> bool:
    """Whether a table is of questions and answers in contexts, as the user says or its columns show.

    Args:
        table: The training data.
        kind: The user's kind.
        label: The user's column of labels.
    """
    if kind is not None:
        return kind == QUESTIONS
    lowered = {name.lower() for name in table.columns}
    return (label is None or label in ANSWERS) and QUESTION in lowered and "context" in lowered and "answers" in lowered


def question_columns(table: Table, text: str | None, pair: str | None, label: str | None) -> Columns:
    """The columns of question, context and answers; None means guess.

    Raises:
        TaskError: A named column is missing, or one cannot be guessed.
    """
    for name in (text, pair, label):
        if name is not None and name not in table.columns:
            raise TaskError(missing_column(table, name))
    lowered = {name.lower(): name for name in reversed(table.columns)}
    found = [
        given or next((lowered[name] for name in names if name in lowered), None)
        for given, names in ((text, (QUESTION,)), (pair, CONTEXTS), (label, ANSWERS))
    ]
    question, context, answers = found
    if question is None or context is None or answers is None or len(set(found)) < len(found):
        raise TaskError(
            f"{table.where}: cannot tell question, context and answers from {', '.join(table.columns)}; name them with "
            "--text-column, --pair-column and --label-column"
        )
    guessed = f"{table.where}: columns guessed: question {question!r}, context {context!r}, answers {answers!r}"
    note = None if text and pair and label else guessed
    return Columns(text=question, pair=context, label=answers, note=note)


def build_questions(
    name: str, source: str, tables: Tables, columns: Columns, wishes: Wishes, notes: list[str] | None = None
) -> Task:
    """Build a task of questions; see `build_task` for the arguments.

    Raises:
        TaskError: The data cannot be used; the message says where.
    """
    metric = choose_metric(QUESTIONS, wishes.metric)
    refuse_positive(wishes)
    told = [*filter(None, [columns.note]), *(notes or [])]
    columns.check(tables.train)
    read = partial(answer_split, columns=columns)
    splits: dict[str, Split | None] = {
        split: None if table is None else sound_rows(table, read, wishes.bad_rows or ERROR, told)[1]
        for split, table in labelled_tables(tables, columns, told).items()
    }
    train, validation = parted(splits, wishes.seed, told)
    return Task(
        name=name,
        kind=QUESTIONS,
        labels=(),
        train=train,
        validation=validation,
        test=splits["test"],
        metric=metric,
        source=source,
        columns=columns,
        notes=tuple(dict.fromkeys(told)),
    )


def separate_answers(table: Table, columns: Columns) -> Split:
    """Read a split of its own; faulty rows are refused together.

    Raises:
        TaskError: A row is faulty.
    """
    columns.check(table)
    return sound_rows(table, partial(answer_split, columns=columns), None, [])[1]


def answer_split(table: Table, columns: Columns) -> AnswerSplit:
    """Read the questions, contexts and answers of a table.

    Raises:
        TaskError: A row has no question, context or answers, or an answer does not stand in its context.
    """
    assert columns.pair is not None, "questions have contexts"
    questions, contexts = read_texts(table, columns.text), read_texts(table, columns.pair)
    start = next((name for name in table.columns if name.lower() == START and name != columns.label), None)
    spans: list[list[int]] = []
    references: list[list[str]] = []
    for i, (value, context) in enumerate(zip(table.columns[columns.label], contexts, strict=True)):
        if is_null(value):
            raise TaskError(
                f"{table.at(i)}: nothing in column {columns.label!r} ([] says that the context has no answer); answer "
                "the question or leave the row out"
            )
        try:
            answers = _answers(value, None if start is None else table.columns[start][i], context)
        except _FormError as error:
            raise TaskError(f"{table.at(i)}: column {columns.label!r}: {error}; correct the row") from error
        places = [_place(answer, context, table.at(i)) for answer in answers]
        spans.append(places[0] if places else [])
        references.append([answer.text.strip() for answer in answers])
    return AnswerSplit.of(questions, contexts, spans, references)


def _place(answer: _Answer, context: str, where: str) -> list[int]:
    """First character of an answer in its context, and the one behind its last."""
    shown = one_line(answer.text, 60)
    if not answer.text.strip():
        raise TaskError(f"{where}: an answer is empty ([] says that the context has none); correct the row")
    start = context.find(answer.text) if answer.start is None else answer.start
    if start < 0 or context[start : start + len(answer.text)] != answer.text:
        at = "in its context" if answer.start is None else f"at character {answer.start} of its context"
        raise TaskError(f"{where}: the answer {shown!r} does not stand {at}; correct the row")
    start += len(answer.text) - len(answer.text.lstrip())  # white space at its ends is no part of an answer
    return [start, start + len(answer.text.strip())]


class _FormError(Exception):
    """A cell does not hold answers, or not their places."""


def _answers(value: object, start: object, context: str) -> list[_Answer]:
    """The answers of a cell.

    Args:
        value: The cell.
        start: The cell of their places; None without one.
        context: A text that stands in it is an answer, also one that begins with a bracket.

    Raises:
        _FormError: The cells hold something else.
    """
    value = value if isinstance(value, str) and value in context else _read(value)
    texts = value
    if isinstance(value, Mapping):
        texts, own = value.get("text"), next((value[key] for key in _STARTS if key in value), None)
        start = start if own is None else own
    elif isinstance(value, list) and value and all(isinstance(each, Mapping) for each in value):
        texts = [each.get("text") for each in value]
        own = [next((each[key] for key in _STARTS if key in each), None) for each in value]
        start = start if all(place is None for place in own) else own
    texts = texts if isinstance(texts, list) else [texts]
    if not all(isinstance(text, str | int | float) and not isinstance(text, bool) for text in texts):
        raise _FormError('no answers (a text, a list of texts, or {"text": [...], "answer_start": [...]})')
    if any(has_surrogate(str(text)) for text in texts):
        raise _FormError("half a surrogate pair")
    places = _read(start)
    places = places if isinstance(places, list) else [places] * max(1, len(texts)) if is_null(places) else [places]
    if len(texts) == 0:
        return []
    if len(places) != len(texts):
        raise _FormError(f"{len(texts)} answers and {len(places)} places in {START!r}")
    return [_Answer(text=str(text), start=_number(at)) for text, at in zip(texts, places, strict=True)]


def _read(value: object) -> object:
    """A cell, read as JSON where it is a text that looks like a list or a mapping."""
    if isinstance(value, str) and value.strip().startswith(("[", "{")):
        with suppress(ValueError, RecursionError):
            found: object = json.loads(value)
            return found
    return value


def _number(value: object) -> int | None:
    """A place of a character; None where the data do not say.

    Raises:
        _FormError: It is no whole number.
    """
    if is_null(value):
        return None
    try:
        number = None if isinstance(value, bool) else float(value)  # type: ignore[arg-type]  # what it refuses is caught
    except (TypeError, ValueError, OverflowError):
        number = None
    if number is None or not number.is_integer():
        raise _FormError(f"{one_line(value, 40)!r} is no place of a character")
    return int(number)
