"""A task from the user's own files."""

from __future__ import annotations

from pathlib import Path

from peftsearch.tasks.kinds import Kind
from peftsearch.tasks.reading.build import VALIDATION_SHARE, Tables, Wishes, build_task
from peftsearch.tasks.reading.columns import choose_columns
from peftsearch.tasks.reading.table import read_table
from peftsearch.tasks.task import Task


def load_files(
    train: str | Path,
    validation: str | Path | None = None,
    test: str | Path | None = None,
    *,
    text_column: str | None = None,
    pair_column: str | None = None,
    label_column: str | None = None,
    kind: Kind | None = None,
    metric: str | None = None,
    validation_share: float = VALIDATION_SHARE,
    seed: int = 0,
) -> Task:
    """Read a task from CSV, TSV, JSON lines or Parquet files.

    Args:
        train: The training examples.
        validation: What trials are scored on; split off from train where None.
        test: What the winner is scored on once.
        text_column: The column of the text; guessed where None, as the next two.
        pair_column: The column of the second text.
        label_column: The column of the class or target.
        kind: Classification or regression; guessed where None.
        metric: A name of the table of metrics.
        validation_share: The share of train to split off.
        seed: Decides which examples are split off.

    Raises:
        TaskError: A file or its content cannot be used.
    """
    wishes = Wishes(kind=kind, metric=metric, validation_share=validation_share, seed=seed)
    tables = Tables(
        train=read_table(train),
        validation=None if validation is None else read_table(validation),
        test=None if test is None else read_table(test),
    )
    columns = choose_columns(tables.train, text_column, pair_column, label_column)
    named = {"train": train, "validation": validation, "test": test}
    source = "files " + ", ".join(f"{split}={Path(path).name}" for split, path in named.items() if path is not None)
    return build_task(Path(train).stem, source, tables, columns, wishes)
