"""Consoles and tables of the terminal."""

from __future__ import annotations

import json
import sys
from typing import Any

from rich.console import Console
from rich.table import Table


def terminal() -> Console:
    """The terminal, or a wide page if the output goes to a file."""
    return Console() if sys.stdout.isatty() else Console(width=160)


def print_rows(rows: list[dict[str, Any]], as_json: bool) -> None:
    """Print a table of rows with equal keys."""
    if as_json:
        print(json.dumps(rows, ensure_ascii=False))
        return
    table = Table()
    for column in rows[0]:
        table.add_column(column, overflow="fold", no_wrap=column == "name")
    for row in rows:
        table.add_row(*(f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row.values()))
    terminal().print(table)
