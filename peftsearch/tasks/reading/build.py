"""Build a task from tables and the names of their columns: kind, classes, targets, splits, and notes."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from random import Random

from peftsearch.errors import TaskError, one_line
from peftsearch.tasks.kinds import Kind
from peftsearch.tasks.metrics import choose_metric, imbalance_note
from peftsearch.tasks.reading.classes import class_indices, classes_of, number_of, odd_names, positive_last
from peftsearch.tasks.reading.columns import Columns
from peftsearch.tasks.reading.faults import ERROR
from peftsearch.tasks.reading.inputs import has_surrogate, holds_tokens, image_split, input_split, is_null, read_texts
from peftsearch.tasks.reading.sound import sound_rows
from peftsearch.tasks.reading.table import Table
from peftsearch.tasks.task import AnswerSplit, ImageSplit, Split, Task

MANY_VALUES = 10
"""Number of different fractional labels above which a task is taken for a regression."""
VALIDATION_SHARE = 0.15
"""Share of train that becomes validation if no validation split is given."""
DECIMAL_COMMA = re.compile(r"-?\d+,\d+")


@dataclass(frozen=True, kw_only=True, slots=True)
class Tables:
    """The splits of a task as tables."""

    train: Table
    """Rows that trials train on, and that validation is split off from if it is missing."""
    validation: Table | None = None
    """Rows that trials are scored on."""
    test: Table | None = None
    """Rows that the winner is scored on once."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Wishes:
    """The user's choices for a task, apart from its data."""

    kind: Kind | None = None
    """Kind of the task; None guesses from the labels."""
    metric: str | None = None
    """A name of the table of metrics; None takes the kind's default."""
    positive: str | None = None
    """Class that f1 is of; None takes the rarer one."""
    bad_rows: str | None = None
    """What happens to rows that cannot be read: `error` (the default) or `drop`; see `sound_rows`."""
    seed: int = 0
    """Seed of the choice of validation examples."""

    def __post_init__(self) -> None:
        """Check the kind."""
        known = ("classification", "regression", "tagging", "multi_label", "question_answering")
        if self.kind not in (None, *known):
            raise TaskError(f"kind is {self.kind!r}; it must be {', '.join(known[:-1])} or {known[-1]}")


def build_task(
    name: str,
    source: str,
    tables: Tables,
    columns: Columns,
    wishes: Wishes,
    class_names: Sequence[str] | None = None,
    notes: Sequence[str] = (),
    images: bool = False,
) -> Task:
    """Build a task.

    Args:
        name: A short name.
        source: Origin of the data.
        tables: The splits.
        columns: Columns of the tables.
        wishes: The user's choices.
        class_names: The classes in order; None takes those of train, in natural order.
        notes: Earlier notes for the user.
        images: Whether the text column holds images.

    Raises:
        TaskError: The data cannot be used; the message says where.
    """
    unused = columns.unused_texts(tables.train) if columns.note is not None and not images else None
    told = [*filter(None, [columns.note, unused]), *notes]
    given = labelled_tables(tables, columns, told)
    tokens = holds_tokens(tables.train, columns.text)
    for split, other in given.items():
        if other is not None:
            columns.check(other)
            read = partial(_read, columns, tokens, images, wishes.kind == "regression")
            given[split], _ = sound_rows(other, read, wishes.bad_rows or ERROR, told)
    first = given["train"]
    assert first is not None, "there is always a train table"
    kind = wishes.kind or _guess_kind(first, columns.label, told)
    metric = choose_metric(kind, wishes.metric)
    classes = classes_of(first, columns.label, class_names) if kind == "classification" else ()
    told.extend(odd_names(first.where, classes))
    if metric == "f1" and len(classes) == 2:
        named = wishes.positive if class_names is None else wishes.positive or classes[1]
        classes = positive_last(first, columns.label, classes, named, told)
    else:
        refuse_positive(wishes)
    whole = partial(_split, columns=columns, classes=classes, images=images)
    splits = {
        split: None if table is None else sound_rows(table, whole, wishes.bad_rows or ERROR, told)[1]
        for split, table in given.items()
    }
    train, validation = splits["train"], splits["validation"]
    assert train is not None, "there is always a train table"
    if validation is None:
        train, validation = split_off(train, VALIDATION_SHARE, wishes.seed, stratify=kind == "classification")
        told.append(
            f"no validation given: {len(validation)} of {len(train) + len(validation)} examples of train were split off"
        )
    told.extend(overlaps(train, {"validation": validation, "test": splits["test"]}))
    if kind == "classification" and (note := imbalance_note(metric, [int(i) for i in train.labels], classes)):
        told.append(note)
    return Task(
        name=name,
        kind=kind,
        labels=classes,
        train=train,
        validation=validation,
        test=splits["test"],
        metric=metric,
        source=source,
        columns=columns,
        notes=tuple(told),
    )


def labelled_tables(tables: Tables, columns: Columns, told: list[str]) -> dict[str, Table | None]:
    """The tables by split, those to score on without the rows that have no label, which are told.

    Raises:
        TaskError: The validation table lacks a column.
    """
    if tables.validation is not None:
        columns.check(tables.validation)  # without labels it is a mistake, and a test split often has none on purpose
    given: dict[str, Table | None] = {"train": tables.train}
    for split, other in (("validation", tables.validation), ("test", tables.test)):
        given[split] = None if other is None else labelled_rows(other, columns.label, told)
    return given


def parted(splits: Mapping[str, Split | None], seed: int, told: list[str]) -> tuple[Split, Split]:
    """Train and validation, which is split off where none is given, whatever the answers; both are told.

    Args:
        splits: The splits by name.
        seed: Seed of the choice.
        told: Receives notes on what is split off, and on examples of other splits that are in train.

    Raises:
        TaskError: There are too few examples.
    """
    train, validation = splits["train"], splits["validation"]
    assert train is not None, "there is always a train table"
    if validation is None:
        train, validation = split_off(train, VALIDATION_SHARE, seed, stratify=False)
        told.append(f"no validation given: {len(validation)} of {len(train) + len(validation)} examples were split off")
    told.extend(overlaps(train, {"validation": validation, "test": splits["test"]}))
    return train, validation


def refuse_positive(wishes: Wishes) -> None:
    """Refuse a positive class where the metric has none.

    Raises:
        TaskError: One is given.
    """
    if wishes.positive is not None:
        raise TaskError(f"--positive {one_line(wishes.positive, 60)}: is for --metric f1 and two classes; leave it out")


def labelled_split(table: Table, columns: Columns, classes: tuple[str, ...], images: bool = False) -> Split:
    """Read a separate split for a task whose classes are known; no classes mean a regression.

    Raises:
        TaskError: A column, a text or a label is missing, or a label is not known.
    """
    columns.check(table)
    read = partial(_read, columns, holds_tokens(table, columns.text), images, not classes)
    table, _ = sound_rows(table, read, None, [])
    whole = partial(_split, columns=columns, classes=classes, images=images)
    return sound_rows(table, whole, None, [])[1]


def labelled_rows(table: Table, column: str, told: list[str]) -> Table | None:
    """The rows of a split to score on that have a label; None without one. Rows that are left out are told."""
    labels = table.columns.get(column)
    if labels is None:
        told.append(f"{table.where}: has no column {column!r} of labels, and is left out")
        return None
    kept = [i for i, value in enumerate(labels) if not is_null(value)]
    return table.keep(kept, "have no label", told)


def _read(columns: Columns, tokens: bool, images: bool, numbers: bool, table: Table) -> None:
    """Check what every kind of task needs of a table: a label (maybe a number), and a text or tokens.

    Images are left to `_split`, so that their files are read once.
    """
    _check_labels_are_plain(table, columns.label)
    _check_labels_there(table, columns.label)
    if numbers:
        _targets(table, columns.label)
    if images:
        return
    if tokens:
        input_split(table, columns.text, columns.pair, tokens=True)
    else:
        for column in filter(None, (columns.text, columns.pair)):
            read_texts(table, column)


def _check_labels_there(table: Table, column: str) -> None:
    for i, value in enumerate(table.columns[column]):
        if is_null(value):
            raise TaskError(f"{table.at(i)}: no label in column {column!r}; label the row or leave it out")
        if has_surrogate(str(value)):
            raise TaskError(f"{table.at(i)}: column {column!r} holds half a surrogate pair; correct the label")


def _check_labels_are_plain(table: Table, column: str) -> None:
    for i, value in enumerate(table.columns[column]):
        if isinstance(value, list | dict | tuple):
            raise TaskError(
                f"{table.at(i)}: column {column!r} holds a {type(value).__name__}, a single label is needed; name "
                "another label column"
            )


def _guess_kind(train: Table, column: str, told: list[str]) -> Kind:
    """Guess the kind: many different fractional labels mean a regression, all others are classes."""
    if all(DECIMAL_COMMA.fullmatch(str(value).strip()) for value in train.columns[column]):
        raise TaskError(
            f"{train.where}: the labels in column {column!r} have decimal commas (such as "
            f"{one_line(train.columns[column][0], 40)!r}); write decimal points, or ask for the kind classification"
        )
    numbers = [number_of(value) for value in train.columns[column]]
    finite = [number for number in numbers if number is not None and math.isfinite(number)]
    fractional = any(not number.is_integer() for number in finite)
    if not fractional or 2 * len(finite) < len(numbers):
        return "classification"
    many = len(set(finite)) > MANY_VALUES
    told.append(
        f"{train.where}: column {column!r} holds fractions of {len(set(finite))} values: taken as a "
        + ("regression" if many else "classification; ask for the kind regression if it is one")
    )
    return "regression" if many else "classification"


def _labels(column: str, classes: tuple[str, ...], table: Table) -> list[int] | list[float]:
    """The indices of the classes, or the targets where there are none."""
    return class_indices(table, column, classes) if classes else _targets(table, column)


def _split(table: Table, columns: Columns, classes: tuple[str, ...], images: bool = False) -> Split:
    labels = _labels(columns.label, classes, table)
    if images:
        return image_split(table, columns.text, labels)
    return input_split(table, columns.text, columns.pair, labels)


def _targets(table: Table, column: str) -> list[float]:
    targets: list[float] = []
    for i, value in enumerate(table.columns[column]):
        number = number_of(value)
        if number is None or not math.isfinite(number):
            raise TaskError(
                f"{table.at(i)}: {one_line(value, 60)!r} in column {column!r} is not a finite number; a regression "
                "needs one in every row"
            )
        targets.append(number)
    if len(set(targets)) == 1 and len(targets) > 1:
        raise TaskError(f"{table.where}: column {column!r} holds one value only; a regression needs several")
    return targets


def split_off(train: Split, share: float, seed: int, *, stratify: bool) -> tuple[Split, Split]:
    """Split off a part, chosen by the seed; both parts keep the order of the rows.

    Args:
        train: The split to divide.
        share: The share to split off.
        seed: The same seed takes the same examples.
        stratify: Whether to take the share of every class; a class with a single example keeps it.

    Returns:
        The rest, and the part.

    Raises:
        TaskError: There are too few examples.
    """
    rng, taken = Random(seed), set[int]()
    if isinstance(train, AnswerSplit):  # the questions about one context stay together
        taken = _of_contexts(train.contexts, round(share * len(train)), rng)
    groups: dict[object, list[int]] = defaultdict(list)
    for i, label in enumerate(train.labels):
        groups[label if stratify else None].append(i)
    if taken:
        groups.clear()
    for key in sorted(groups, key=str):
        n_taken = min(max(1, round(share * len(groups[key]))), len(groups[key]) - 1)
        taken.update(rng.sample(groups[key], n_taken))
    if not taken:
        raise TaskError(
            f"train: {len(train)} examples are too few to split validation off; give a validation file with "
            "--validation"
        )
    rest = [i for i in range(len(train)) if i not in taken]
    return train.take(rest), train.take(sorted(taken))


def _of_contexts(contexts: Sequence[str], n: int, rng: Random) -> set[int]:
    """At least n examples whose contexts no other example has; none where all have one context."""
    by_context: dict[str, list[int]] = defaultdict(list)
    for i, context in enumerate(contexts):
        by_context[context].append(i)
    order = list(by_context.values())
    rng.shuffle(order)
    taken: set[int] = set()
    for own in order[:-1]:
        if len(taken) >= max(1, n):
            break
        taken.update(own)
    return taken


def overlaps(train: Split, others: dict[str, Split | None]) -> list[str]:
    """Notes on how many examples of other splits occur in train too."""
    known = set(train.rows())
    counts = {name: sum(row in known for row in split.rows()) for name, split in others.items() if split is not None}
    what = "images" if isinstance(train, ImageSplit) else "texts"
    return [f"{count} {what} of {name} occur in train too" for name, count in counts.items() if count]


def set_aside(task: Task, seed: int) -> Task:
    """Set half of the validation aside as the test split of a task that has none.

    The halves of the examples of every class are equal, and equal rows (rows with one prompt, or one context) stay
    together.

    Args:
        task: The task.
        seed: Seed of the choice.

    Raises:
        TaskError: The validation is too small.
    """
    if task.test is not None:
        return task
    rows: dict[object, list[int]] = {}
    split = task.validation
    same: Sequence[object] = split.texts if task.kind == "generation" else split.rows()
    if isinstance(split, AnswerSplit):
        same = split.contexts
    for i, row in enumerate(same):
        rows.setdefault(row, []).append(i)
    by_class: dict[object, list[list[int]]] = {}
    for own in rows.values():
        label = task.validation.labels[own[0]] if task.kind == "classification" else None
        by_class.setdefault(label, []).append(own)
    rng = Random(seed)
    halves: tuple[list[int], list[int]] = ([], [])
    for groups in by_class.values():
        rng.shuffle(groups)
        for group in groups:
            min(halves, key=len).extend(group)
    kept, aside = (sorted(half) for half in halves)
    if not aside:
        raise TaskError(f"task {task.name!r}: one validation example is too few; give a test split, or more of them")
    note = (
        f"there is no test split: {len(aside):,} of {len(task.validation):,} validation examples are set aside for it"
    )
    return replace(
        task,
        validation=task.validation.take(kept),
        test=task.validation.take(aside),
        notes=(*task.notes, note),
    )


def limit_train(task: Task, max_train: int | None, seed: int) -> Task:
    """Keep at most `max_train` training examples, drawn by the seed without regard to classes.

    Raises:
        TaskError: The limit is below 2.
    """
    if max_train is not None and max_train < 2:
        raise TaskError(f"task {task.name!r}: max_train is {max_train}; it must be at least 2")
    if max_train is None or max_train >= len(task.train):
        return task
    kept = task.train.take(sorted(Random(seed).sample(range(len(task.train)), max_train)))
    note = f"{max_train} of {len(task.train)} training examples are used (max_train)"
    limited = replace(task, train=kept, notes=(*task.notes, note), fingerprint="")
    if task.kind == "classification" and len(Counter(kept.labels)) < 2:
        raise TaskError(f"task {task.name!r}: max_train {max_train} leaves one class only; raise it")
    return limited
