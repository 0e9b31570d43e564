"""Read a file of examples into columns: CSV, TSV, JSON lines, a JSON list, or Parquet.

The readers keep the line that each row starts on, so that errors in the data name their place. Values stay as they are
in the file; in CSV and TSV all are strings.
"""

from __future__ import annotations

import csv
import difflib
import io
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from peftsearch.errors import TaskError, one_line
from peftsearch.tasks.reading.faults import DROP, WAY_OUT, reason, shown

SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet")
DELIMITERS = (",", ";", "\t", "|")

Row = tuple[int, dict[str, object]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """The columns of one file or hub split."""

    where: str
    """Name of the table in messages."""
    columns: dict[str, list[object]]
    """Values by column; all columns have the same length."""
    lines: list[int]
    """Line or row number where each row starts, from 1."""
    unit: Literal["line", "row"]
    """Unit of `lines`."""
    arrow: Any = field(default=None, repr=False, compare=False)
    """The same columns as an Arrow table, with their own types; None if they are not from Parquet."""

    def __len__(self) -> int:
        """The number of rows."""
        return len(self.lines)

    def at(self, index: int) -> str:
        """Place of a row, for messages."""
        return f"{self.where}, {self.unit} {self.lines[index]}"

    def take(self, indices: list[int]) -> Table:
        """The rows at `indices`, in that order."""
        columns = {name: [values[i] for i in indices] for name, values in self.columns.items()}
        return Table(where=self.where, columns=columns, lines=[self.lines[i] for i in indices], unit=self.unit)

    def keep(self, indices: list[int], why: str, told: list[str]) -> Table | None:
        """The rows at `indices`; None where there are none. The number of the others is told.

        Args:
            indices: Rows to keep.
            why: Why the others are left out, as the end of a sentence about them.
            told: Receives a note if rows are left out.
        """
        n_out = len(self) - len(indices)
        if n_out:
            told.append(f"{self.where}: {n_out} of {len(self)} rows {why} and were left out")
        return self.take(indices) if indices else None


def read_table(path: str | Path, bad_rows: str | None = None, told: list[str] | None = None) -> Table:
    """Read one file by its suffix.

    Args:
        path: The file.
        bad_rows: `drop` leaves out lines that are no rows (too many fields, malformed JSON); else they are refused.
            None refuses them where the user has no such choice.
        told: Receives a note if lines are left out.

    Raises:
        TaskError: The file does not exist, its content does not match its suffix, or it has no rows.
    """
    path = Path(path)
    faults = Faults(bad_rows=bad_rows, told=[] if told is None else told)
    try:
        check_file(path)
        table = _read_parquet(path) if path.suffix.lower() == ".parquet" else _read_text(path, faults)
    except OSError as fault:
        raise TaskError(f"{one_line(path, 120)}: cannot be read: {fault.strerror or one_line(fault)}") from fault
    except RecursionError as fault:
        raise TaskError(f"{path}: is nested too deeply; write one flat object per line") from fault
    if not len(table):
        raise TaskError(
            f"{path}: has no rows (columns: {', '.join(table.columns) or 'none'}); give a file with examples"
        )
    return table


def check_file(path: Path) -> None:
    """Check that a file of a known format is there and not empty.

    Raises:
        TaskError: It is not, or it is a folder; tells names like it.
    """
    if path.is_dir():
        raise TaskError(
            f"{path}: is a folder, a file is needed ({' '.join(SUFFIXES)}); a folder of images goes with --kind image, "
            "another to --task"
        )
    if not path.exists():
        names = sorted(p.name for p in path.parent.iterdir()) if path.parent.is_dir() else []
        near = difflib.get_close_matches(path.name, names, n=3)
        hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"looked in {path.parent.absolute()}"
        raise TaskError(f"{path}: no such file; {hint}")
    if path.suffix.lower() not in SUFFIXES:
        raise TaskError(f"{path}: unknown suffix {path.suffix!r}; give a file of one of: {', '.join(SUFFIXES)}")
    if path.stat().st_size == 0:
        raise TaskError(f"{path}: is empty; give a file with examples")


@dataclass(frozen=True, kw_only=True, slots=True)
class Faults:
    """Lines of a file that are no rows."""

    bad_rows: str | None
    told: list[str]
    """Receives a note on lines that are left out."""
    found: list[str] = field(default_factory=list)
    """What is wrong with each, and what to do, after a semicolon."""

    def settle(self, path: Path, n: int) -> None:
        """Refuse the lines of a file of n rows, or tell that they are left out.

        Raises:
            TaskError: There are such lines, and they are not to be left out; or there are no others.
        """
        if not self.found:
            return
        reasons = [reason(fault) for fault in self.found]
        told = shown(reasons, 160)
        how_many = f"{len(reasons):,} of {n:,} rows"
        if self.bad_rows == DROP and len(reasons) < n:
            self.told.append(f"{path}: {how_many} are faulty and were left out: {told}")
            return
        way_out = "" if self.bad_rows is None else WAY_OUT
        if len(reasons) == 1:
            raise TaskError(f"{path}, {self.found[0]}{way_out}")
        raise TaskError(f"{path}: {how_many} are faulty: {told}; correct them{way_out}")


def _read_text(path: Path, faults: Faults) -> Table:
    text = _decode(path)
    if not text.strip():
        raise TaskError(f"{path}: is empty; give a file with examples")
    suffix = path.suffix.lower()
    if suffix in (".csv", ".tsv"):
        return _read_delimited(path, text, faults)
    if suffix == ".json" and text.lstrip().startswith("["):
        return _from_rows(path, _json_list(path, text, faults), "row")
    return _from_rows(path, _json_lines(path, text, faults), "line")


def _decode(path: Path) -> str:
    raw = path.read_bytes()
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise TaskError(
            f"{path}: is UTF-16, UTF-8 is needed; save it as 'CSV UTF-8', or: iconv -f UTF-16 -t UTF-8 IN > OUT"
        )
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as fault:
        line = raw[: fault.start].count(b"\n") + 1
        raise TaskError(
            f"{path}, line {line}: not UTF-8 (byte 0x{raw[fault.start]:02x} at offset {fault.start}); save it as "
            "'CSV UTF-8', or: iconv -f WINDOWS-1252 -t UTF-8 IN > OUT"
        ) from None


def _sniff(path: Path, text: str) -> str:
    """The most frequent delimiter in the header; ties go to the suffix's own, then to the first of `DELIMITERS`."""
    header = next(line for line in text.splitlines() if line.strip())
    own = "\t" if path.suffix.lower() == ".tsv" else ","
    return max(DELIMITERS, key=lambda mark: (header.count(mark), mark == own))


def _read_delimited(path: Path, text: str, faults: Faults) -> Table:
    first, _, rest = text.partition("\n")
    if first.strip().lower().startswith("sep="):  # a line that Excel writes to name the delimiter
        text = rest
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))  # the module refuses long texts otherwise
    mark = _sniff(path, text)
    try:
        records = list(_records(text, mark, csv.QUOTE_MINIMAL))
    except csv.Error as fault:
        if mark != "\t":
            raise TaskError(
                f"{path}, {one_line(fault)}; put a field with quotes or line ends in double quotes"
            ) from None
        records = list(_records(text, mark, csv.QUOTE_NONE))  # tab-separated files often hold bare quotes
    if not records:
        raise TaskError(f"{path}: holds nothing but delimiters; give a file with a header and examples")
    (_, header), rows = records[0], records[1:]
    names = [name.strip() for name in header]
    _check_names(path, names)
    for line, fields in rows:
        if len(fields) != len(names):
            faults.found.append(
                f"line {line}: {len(fields)} fields where the header has {len(names)} (delimiter {mark!r}); "
                "put a field that holds the delimiter in double quotes"
            )
    faults.settle(path, len(rows))
    rows = [(line, fields) for line, fields in rows if len(fields) == len(names)]
    names = _with_unnamed(names)
    columns: dict[str, list[object]] = {name: [fields[i] for _, fields in rows] for i, name in enumerate(names)}
    return Table(where=str(path), columns=columns, lines=[line for line, _ in rows], unit="line")


def _records(text: str, mark: str, quoting: Literal[0, 3]) -> Iterator[tuple[int, list[str]]]:
    """The records, each with the line that it starts on; without blank lines, and without empty cells at the end.

    Spreadsheets write such rows behind their last one. Elsewhere, a row of empty cells is a row.
    """
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=mark, quoting=quoting, strict=True)
    start, empty, begun = 1, list[tuple[int, list[str]]](), False
    try:
        for fields in reader:
            if any(field.strip() for field in fields):
                yield from empty
                yield start, fields
                begun = True
                empty.clear()
            elif begun and len(fields) > 1:
                empty.append((start, fields))
            start = reader.line_num + 1
    except csv.Error as fault:
        raise csv.Error(f"line {start}: {fault}") from None


def _with_unnamed(names: list[str]) -> list[str]:
    """The names of all columns: one without a name keeps none, further ones get one that is free."""
    made: list[str] = []
    for i, name in enumerate(names):
        own = name
        if not name and "" in made:
            tries = (f"unnamed {i + 1}{mark}" for mark in ("", *(f" ({k})" for k in range(2, len(names) + 2))))
            own = next(one for one in tries if one not in names and one not in made)
        made.append(own)
    return made


def _check_names(path: Path, names: list[str]) -> None:
    double = [name for name, count in Counter(filter(None, names)).items() if count > 1]
    if double:
        raise TaskError(f"{path}: duplicate column names: {', '.join(double)}; rename one of each in the header")


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    double = [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]
    if double:
        raise ValueError(f"duplicate column names: {', '.join(double)}")
    return dict(pairs)


def _json_lines(path: Path, text: str, faults: Faults) -> Iterator[Row]:
    n = 0
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        n += 1
        try:
            row = json.loads(line, object_pairs_hook=_unique_keys)
        except ValueError as fault:
            faults.found.append(f"line {number}: malformed JSON ({one_line(fault)}); write one object per line")
            continue
        except RecursionError:
            faults.found.append(f"line {number}: is nested too deeply; write one flat object per line")
            continue
        if isinstance(row, dict):
            yield number, row
        else:
            faults.found.append(f"line {number}: {_no_object(row)}")
    faults.settle(path, n)


def _json_list(path: Path, text: str, faults: Faults) -> Iterator[Row]:
    try:
        rows = json.loads(text, object_pairs_hook=_unique_keys)
    except ValueError as fault:
        raise TaskError(
            f"{path}: malformed JSON ({one_line(fault)}); write a list of objects, or one per line"
        ) from None
    for number, row in enumerate(rows, start=1):
        if isinstance(row, dict):
            yield number, row
        else:
            faults.found.append(f"row {number}: {_no_object(row)}")
    faults.settle(path, len(rows))


def _no_object(row: object) -> str:
    return f'a JSON {type(row).__name__}, an object is needed, like {{"text": "...", "label": "..."}}'


def _from_rows(path: Path, rows: Iterator[Row], unit: Literal["line", "row"]) -> Table:
    """Turn rows of objects into columns; missing keys become null."""
    kept = list(rows)
    names = dict.fromkeys(name for _, row in kept for name in row)
    columns = {name: [row.get(name) for _, row in kept] for name in names}
    return Table(where=str(path), columns=columns, lines=[number for number, _ in kept], unit=unit)


def _read_parquet(path: Path) -> Table:
    import pyarrow as pa  # type: ignore[import-untyped]  # has no type hints
    from pyarrow import parquet

    try:
        table = parquet.read_table(path)
    except (pa.ArrowException, OSError) as fault:
        raise TaskError(
            f"{path}: cannot be read as Parquet ({one_line(fault, 120)}); save it again, or give CSV"
        ) from None
    _check_names(path, table.column_names)
    columns = {name: table.column(name).to_pylist() for name in table.column_names}
    lines = list(range(1, table.num_rows + 1))
    return Table(where=str(path), columns=columns, lines=lines, unit="row", arrow=table)
