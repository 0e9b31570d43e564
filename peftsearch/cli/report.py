"""`peftsearch report`: write the HTML page of a run."""

from __future__ import annotations

from pathlib import Path

from peftsearch.errors import ReportError
from peftsearch.report.page import plotly_js
from peftsearch.report.write_up import write_up
from peftsearch.study.record import read_record


def report(run: Path, /, *, output: Path | None = None, storage: str = "") -> int:
    """Write a run's report.html, which opens in any browser without a network.

    Args:
        run: Folder of a run, finished or not.
        output: File to write (default: report.html in the folder).
        storage: Optuna storage URL of the run (default: SQLite in the folder).

    Raises:
        PeftSearchError: The folder is not a run or is damaged, or the page cannot be written.
    """
    plotly_js()  # reports a missing extra before anything is read
    text = write_up(read_record(run, storage))
    path = output or run / "report.html"
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ReportError(f"{path}: {error.strerror}; give another file with --output") from error
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB, opens in any browser, offline too")
    return 0
