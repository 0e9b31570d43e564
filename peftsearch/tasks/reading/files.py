"""Read a task from the user's own files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from peftsearch.options import TaskOptions
from peftsearch.tasks.reading.answers import asks_questions, build_questions, question_columns
from peftsearch.tasks.reading.build import Tables, Wishes, build_task
from peftsearch.tasks.reading.chats import chat_column
from peftsearch.tasks.reading.columns import choose_columns
from peftsearch.tasks.reading.faults import ERROR
from peftsearch.tasks.reading.pairs import load_pairs
from peftsearch.tasks.reading.several import build_several, columns_of, guess_note, kind_of
from peftsearch.tasks.reading.table import read_table
from peftsearch.tasks.task import Task


def load_files(options: TaskOptions, seed: int = 0) -> Task:
    """Read a task from CSV, TSV, JSON lines or Parquet files.

    Args:
        options: Files, columns, kind and metric; None means guess.
        seed: Seed of the choice of validation examples, if no validation file is given.

    Raises:
        TaskError: A file or its content cannot be used.
    """
    train, validation, test = options.train, options.validation, options.test
    assert train is not None, "a task of files has a training file"
    told: list[str] = []
    bad = options.bad_rows or ERROR
    first = read_table(train, bad, told)
    if options.kind is None and options.label_column is None and chat_column(first) is not None:
        return load_pairs(options, seed, first, told)
    wishes = Wishes(
        kind=options.kind,  # type: ignore[arg-type]  # checked there
        metric=options.metric,
        positive=options.positive,
        seed=seed,
        bad_rows=options.bad_rows,
    )
    tables = Tables(
        train=first,
        validation=None if validation is None else read_table(validation, bad, told),
        test=None if test is None else read_table(test, bad, told),
    )
    named = {"train": train, "validation": validation, "test": test}
    source = "files " + ", ".join(f"{split}={Path(path).name}" for split, path in named.items() if path is not None)
    if asks_questions(first, options.kind, options.label_column):
        columns = question_columns(first, options.text_column, options.pair_column, options.label_column)
        return build_questions(Path(train).stem, source, tables, columns, wishes, told)
    several = kind_of(first, options.kind, options.text_column, options.label_column)
    if several is not None:
        guessed = guess_note(first, several, options.kind)
        columns = columns_of(first, several, options.text_column, options.pair_column, options.label_column)
        return build_several(
            Path(train).stem, source, tables, columns, replace(wishes, kind=several), notes=[*told, *guessed]
        )
    columns = choose_columns(tables.train, options.text_column, options.pair_column, options.label_column)
    return build_task(Path(train).stem, source, tables, columns, wishes, notes=told)
