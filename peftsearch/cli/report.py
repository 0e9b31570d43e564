"""`peftsearch report`: read a run, write its page."""

from __future__ import annotations

from pathlib import Path

from peftsearch.errors import ReportError
from peftsearch.report.page import plotly_js
from peftsearch.report.record import read_record
from peftsearch.report.write_up import write_up


def report(run: Path, output: Path | None = None, storage: str = "") -> int:
    """Write the page and say where it is.

    Args:
        run: The folder of the run.
        output: The file; None for `report.html` in the folder.
        storage: The Optuna storage URL that the run was given; empty for SQLite in the folder.

    Raises:
        PeftSearchError: It is no run, it is damaged, or the page cannot be written.
    """
    plotly_js()  # a missing extra is said before anything is read
    text = write_up(read_record(run, storage))
    path = output or run / "report.html"
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ReportError(f"{path}: {error.strerror}; give another file with --output") from error
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB, opens in any browser, offline too")
    return 0
