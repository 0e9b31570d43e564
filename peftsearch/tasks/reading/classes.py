"""The classes of a column of labels: their names, their order, and the one that f1 is of."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

from peftsearch.errors import TaskError, one_line
from peftsearch.tasks.reading.table import Table


def class_name(value: object) -> str:
    """Name of a class: 1, 1.0, "1" and " 1.0 " are all "1"."""
    text = str(value).strip()
    return re.sub(r"^(-?\d+)\.0+$", r"\1", text)


def natural_key(name: str) -> tuple[object, ...]:
    """Sort "2" before "10", "-1" before "1" and "grade 2" before "grade 10"."""
    number = number_of(name)
    if number is None or not math.isfinite(number):
        parts = re.split(r"(\d+)", name)
        return (1, *(part if i % 2 == 0 else (int(part), part) for i, part in enumerate(parts)))
    return (0, number, name)


def classes_of(train: Table, column: str, given: Sequence[str] | None) -> tuple[str, ...]:
    """The classes in natural order, or those that are given.

    Raises:
        TaskError: There is one class only, or about as many as rows.
    """
    found = {class_name(value) for value in train.columns[column]}
    if len(found) < 2:
        raise TaskError(
            f"{train.where}: column {column!r} holds one class only ({one_line(next(iter(found)), 60)!r}); at least "
            "two are needed"
        )
    if given is not None:
        return tuple(given)
    if len(found) > max(2, len(train) / 2):
        raise TaskError(
            f"{train.where}: column {column!r} holds {len(found)} classes in {len(train)} rows; name another label "
            "column, or ask for the kind regression"
        )
    return tuple(sorted(found, key=natural_key))


def odd_names(where: str, classes: Sequence[str]) -> list[str]:
    """Notes on names of classes that are seldom meant: missing values, and names that differ by case alone."""
    odd = [repr(name) for name in classes if name.lower() in ("nan", "none", "null", "n/a", "na", "unknown")]
    notes = [f"{where}: {', '.join(odd)} counts as a class; leave these rows out if it means none"] if odd else []
    first: dict[str, str] = {}
    for name in classes:
        if (other := first.setdefault(name.lower(), name)) != name:
            notes.append(f"{where}: {other!r} and {name!r} are two classes")
    return notes


def positive_last(
    train: Table, column: str, classes: tuple[str, ...], positive: str | None, told: list[str]
) -> tuple[str, ...]:
    """Two classes with the one that f1 is of at the end.

    Raises:
        TaskError: There is no such class.
    """
    counts = Counter(class_name(value) for value in train.columns[column])
    positive = min(classes, key=lambda name: counts[name]) if positive is None else class_name(positive)
    if positive not in classes:
        raise TaskError(f"--positive {one_line(positive, 60)!r}: is no class (known: {', '.join(classes)})")
    share = counts[positive] / max(1, sum(counts.values()))
    told.append(f"f1 is of the class {positive!r}, {share:.0%} of train; --positive names another")
    return (*(name for name in classes if name != positive), positive)


def class_indices(table: Table, column: str, classes: tuple[str, ...]) -> list[int]:
    """The index of the class of every row.

    Raises:
        TaskError: A label is none of the classes.
    """
    index = {name: i for i, name in enumerate(classes)}
    names = [class_name(value) for value in table.columns[column]]
    for i, name in enumerate(names):
        if name not in index:
            known = one_line(", ".join(classes), 120)
            raise TaskError(
                f"{table.at(i)}: label {one_line(name, 60)!r} does not occur in training (known: {known}); correct "
                "it or leave the row out"
            )
    return [index[name] for name in names]


def number_of(value: object) -> float | None:
    """The number that a value is or spells; None for others."""
    try:
        return float(str(value))
    except ValueError:
        return None
