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
from peftsearch.tasks.reading.build import (
    VALIDATION_SHARE,
    Tables,
    Wishes,
    labelled_tables,
    overlaps,
    refuse_positive,
    split_off,
)
from peftsearch.tasks.reading.columns import Columns, missing_column
from peftsearch.tasks.reading.faults import ERROR
from peftsearch.tasks.reading.inputs import has_surrogate, is_null, read_texts
from peftsearch.tasks.reading.sound import sound_rows
from peftsearch.tasks.reading.table import Table
from peftsearch.tasks.task import AnswerSplit, Split, Task

QUESTION, CONTEXTS, ANSWERS = "question", ("context", "passage", "paragraph"), ("answers", "answer")
"""Usual names of the columns, the best guess first."""
START = "answer_start"
"""Column of the first character of a single answer."""


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
    train, validation = splits["train"], splits["validation"]
    assert train is not None, "there is always a train table"
    if validation is None:
        train, validation = split_off(train, VALIDATION_SHARE, wishes.seed, stratify=False)
        told.append(f"no validation given: {len(validation)} of {len(train) + len(validation)} examples were split off")
    told.extend(overlaps(train, {"validation": validation, "test": splits["test"]}))
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
    spans: list[list[int]] = []
    references: list[list[str]] = []
    for i, (value, context) in enumerate(zip(table.columns[columns.label], contexts, strict=True)):
        if is_null(value):
            raise TaskError(
                f"{table.at(i)}: nothing in column {columns.label!r} ([] says that the context has no answer); answer "
                "the question or leave the row out"
            )
        given = table.columns[START][i] if START in table.columns and columns.label != START else None
        answers = _answers(value, given)
        if answers is None or any(has_surrogate(answer.text) for answer in answers):
            raise TaskError(
                f"{table.at(i)}: column {columns.label!r} does not hold answers (a text, a list of texts, or "
                '{"text": [...], "answer_start": [...]}); correct the row'
            )
        places = [_place(answer, context, table.at(i)) for answer in answers]
        spans.append(places[0] if places else [])
        references.append([answer.text for answer in answers])
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
    return [start, start + len(answer.text)]


def _answers(value: object, start: object) -> list[_Answer] | None:
    """The answers of a cell; None where it holds something else."""
    if isinstance(value, str) and value.strip().startswith(("[", "{")):
        with suppress(ValueError):  # a text may begin with a bracket
            value = json.loads(value)
    if isinstance(value, str):
        given = _number(start)
        return [_Answer(text=value, start=given)]
    if isinstance(value, Mapping):
        texts, starts = value.get("text"), value.get("answer_start")
        texts = [texts] if isinstance(texts, str) else texts
        starts = [starts] if isinstance(starts, int) else starts
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            return None
        places = [None] * len(texts) if starts is None else starts
        if not isinstance(places, list) or len(places) != len(texts):
            return None
        return [_Answer(text=text, start=_number(at)) for text, at in zip(texts, places, strict=True)]
    if not isinstance(value, list):
        return None
    found: list[_Answer] = []
    for each in value:
        own = _answers(each, None) if isinstance(each, str | Mapping) else None
        if own is None:
            return None
        found += own
    return found


def _number(value: object) -> int | None:
    """A place of a character; None where there is none."""
    if is_null(value) or isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return int(float(value))
    except ValueError:
        return None
