"""`peftsearch report`: write the HTML page of a run."""

from __future__ import annotations

from pathlib import Path

from peftsearch.report.write_up import write_report


def report(run: Path, /, *, output: Path | None = None, storage: str = "") -> int:
    """Write a run's report.html, which opens in any browser without a network.

    Args:
        run: Folder of a run, finished or not.
        output: File to write (default: report.html in the folder).
        storage: Optuna storage URL of the run (default: SQLite in the folder).
    """
    path = write_report(run, output, storage)
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB, opens in any browser, offline too")
    return 0
