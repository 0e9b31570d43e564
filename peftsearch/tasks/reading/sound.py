"""Rows that cannot be read: all are found, and refused together or left out, whatever kind of data they hold."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from peftsearch.errors import TaskError
from peftsearch.tasks.reading.faults import DROP, SHOWN, WAY_OUT, reason, shown
from peftsearch.tasks.reading.table import Table

T = TypeVar("T")


def sound_rows(table: Table, read: Callable[[Table], T], bad_rows: str | None, told: list[str]) -> tuple[Table, T]:
    """The rows of a table that can be read, and what is read from them.

    Args:
        table: The table.
        read: Reads a table, and raises for a row that it cannot read.
        bad_rows: `drop` leaves faulty rows out and tells them; `error` refuses them; None refuses them where the user
            has no such choice.
        told: Receives a note if rows are left out.

    Raises:
        TaskError: A row is faulty, and is not to be left out; or all are.
    """
    try:
        return table, read(table)
    except TaskError as error:
        faults = _faults(table, read)
        if not faults:
            raise  # of the table as a whole
        how_many = f"{len(faults):,} of {len(table):,} rows"
        if bad_rows != DROP or len(faults) == len(table):
            raise TaskError(_refusal(table, list(faults.values()), how_many, bad_rows)) from error
        told.append(f"{table.where}: {how_many} are faulty and were left out: {_shown(table, list(faults.values()))}")
    sound = table.take([i for i in range(len(table)) if i not in faults])
    return sound, read(sound)


def _faults(table: Table, read: Callable[[Table], object]) -> dict[int, str]:
    """What is wrong with each row that cannot be read alone."""
    faults = {}
    for i in range(len(table)):
        try:
            read(table.take([i]))
        except TaskError as error:
            faults[i] = str(error)
    return faults


def _refusal(table: Table, faults: list[str], how_many: str, bad_rows: str | None) -> str:
    first, *others = faults
    if len(table) == 1:
        return first
    more = f"; next: {_shown(table, others, SHOWN - 1)}" if others else ""
    drop = WAY_OUT if bad_rows is not None and len(faults) < len(table) else ""
    return f"{reason(first)} ({how_many} are faulty{more}); correct them{drop}"


def _shown(table: Table, faults: list[str], n: int = SHOWN) -> str:
    """The first faults, without the name of the table."""
    return shown([reason(fault).removeprefix(f"{table.where}, ") for fault in faults], 120, n)
