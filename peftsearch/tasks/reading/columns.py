"""Columns of the text, the second text and the label, named by the user or guessed from names and values."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from peftsearch.errors import TaskError
from peftsearch.tasks.reading.table import Table

TEXTS = (
    "text",
    "sentence",
    "content",
    "review",
    "question",
    "comment",
    "tweet",
    "document",
    "body",
    "message",
    "title",
)
PAIRS = (
    ("text_a", "text_b"),
    ("text1", "text2"),
    ("premise", "hypothesis"),
    ("sentence1", "sentence2"),
    ("sentence_a", "sentence_b"),
    ("question1", "question2"),
    ("question", "sentence"),
    ("question", "passage"),
    ("query", "document"),
)
LABELS = ("label", "labels", "class", "target", "score", "category", "rating", "stars", "gold_label")


@dataclass(frozen=True, kw_only=True, slots=True)
class Columns:
    """The names of the columns of a task."""

    text: str
    """Column of the text, of the first text of each pair, or of the prompt for generation."""
    pair: str | None = None
    """Column of the second text of each pair, or of what follows the prompt, for generation."""
    label: str
    """Column of the class, the target, or the completion of each prompt."""
    note: str | None = None
    """Note on guessed columns, one sentence."""

    @property
    def holds_chats(self) -> bool:
        """Whether one column holds chats, prompts and completions in one."""
        return self.text == self.label

    def unused_texts(self, table: Table) -> str | None:
        """A note on columns of texts that are not used; None without one."""
        own = (self.text, self.pair, self.label)
        others = {name: values for name, values in table.columns.items() if name not in own and is_prose(values)}
        # Names, codes and categories are one word each.
        unused = [
            name for name, values in others.items() if 2 * sum(" " in str(v).strip() for v in values) > len(table)
        ]
        if not unused:
            return None
        told = ", ".join(map(repr, unused))
        return f"{table.where}: NOT USED, though texts: {told}; name the columns to use another"

    def check(self, table: Table) -> None:
        """Check that a table has the columns.

        Raises:
            TaskError: A column is missing.
        """
        for name in filter(None, (self.text, self.pair, self.label)):
            if name not in table.columns:
                raise TaskError(missing_column(table, name))


def choose_columns(table: Table, text: str | None, pair: str | None, label: str | None) -> Columns:
    """Complete the columns that the user named with guesses.

    Args:
        table: The training data.
        text: The user's text column.
        pair: The user's column of second texts.
        label: The user's label column.

    Raises:
        TaskError: A named column is missing, one is named twice, or the others cannot be guessed.
    """
    named = [name for name in (text, pair, label) if name is not None]
    for name in named:
        if name not in table.columns:
            raise TaskError(missing_column(table, name))
    lowered = {name.lower() for name in table.columns}
    if label is None and {"question", "answers"} <= lowered and "context" not in lowered:
        raise TaskError(
            f"{table.where}: looks like question answering without a column 'context'; to find answers in a text, name "
            "its column (--kind question_answering --pair-column TEXT); to write them, give --kind generation "
            "--prompt-column question"
        )
    if len(set(named)) < len(named):
        raise TaskError(f"{table.where}: text, pair and label must be different columns, got {', '.join(named)}")
    found_label = label or _guess_label(table, [name for name in (text, pair) if name is not None])
    found_text, found_pair = (text, pair) if text else _guess_text(table, found_label, pair)
    note = None
    if text is None or label is None:
        both = f"text {found_text!r}, " + (f"pair {found_pair!r}, " if found_pair else "")
        note = f"{table.where}: columns guessed: {both}label {found_label!r}"
    return Columns(text=found_text, pair=found_pair, label=found_label, note=note)


def choose_texts(table: Table, text: str | None, pair: str | None, known: Columns | None) -> tuple[str, str | None]:
    """Choose the columns of the text and the second text in a table without labels.

    Args:
        table: The table to predict.
        text: The user's text column.
        pair: The user's column of second texts.
        known: The columns used in training, which are the default.

    Raises:
        TaskError: A column is missing, or the columns cannot be guessed.
    """
    if known is not None:
        text, pair = text or known.text, pair or known.pair
    for name in filter(None, (text, pair)):
        if name not in table.columns:
            raise TaskError(
                f"{missing_column(table, name)}; name it with --{'text' if name == text else 'pair'}-column"
            )
    return (text, pair) if text else _guess_text(table, "", pair)


def missing_column(table: Table, name: str) -> str:
    """Say that a column is missing, with the nearest name and all existing ones."""
    lowered = {column.lower(): column for column in table.columns}
    near = difflib.get_close_matches(name.lower(), lowered, n=1)
    hint = f"; did you mean {lowered[near[0]]!r}?" if near else ""
    return f"{table.where}: no column {name!r}{hint} (columns: {', '.join(table.columns)})"


def _guess_label(table: Table, taken: list[str]) -> str:
    free = {name.lower(): name for name in table.columns if name and name not in taken}
    for name in LABELS:
        if name in free:
            return free[name]
    names = list(free.values())
    if taken and len(names) == 1:
        return names[0]
    if not taken and len(names) == 2:
        label = _label_of_two(table, names[0], names[1])
        if label is not None:
            return label
    raise TaskError(
        f"{table.where}: cannot tell the label column from {', '.join(table.columns)}; name it with --label-column"
    )


def _label_of_two(table: Table, first: str, second: str) -> str | None:
    """Choose the label among two columns: the one of numbers, or else the one with at most half as many values."""
    prose = [name for name in (first, second) if is_prose(table.columns[name])]
    if len(prose) == 1:
        return second if prose[0] == first else first
    n_first, n_second = (len(set(map(str, table.columns[name]))) for name in (first, second))
    if 2 * min(n_first, n_second) > max(n_first, n_second):
        return None
    return first if n_first < n_second else second


def _guess_text(table: Table, label: str, pair: str | None) -> tuple[str, str | None]:
    free = {name.lower(): name for name in table.columns if name and name not in (label, pair)}
    if "input_ids" in free and pair is None:  # tokenised already
        return free["input_ids"], None
    if pair is None:
        for first, second in PAIRS:
            if first in free and second in free:
                return free[first], free[second]
    for name in TEXTS:
        if name in free:
            return free[name], pair
    prose = [name for name in free.values() if is_prose(table.columns[name])]
    if len(prose) == 1:
        return prose[0], pair
    raise TaskError(
        f"{table.where}: cannot tell the text column from {', '.join(table.columns)}; name it with --text-column"
    )


def is_prose(values: list[object]) -> bool:
    """Whether a column holds strings that are not all numbers."""
    strings = [value for value in values if isinstance(value, str)]
    return bool(strings) and not all(_is_number(value) for value in strings)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
