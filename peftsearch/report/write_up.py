"""Assemble the sections of a study's page."""

from __future__ import annotations

from pathlib import Path

from peftsearch.errors import ReportError
from peftsearch.report.comparison import comparison
from peftsearch.report.course import course, stages
from peftsearch.report.front import front
from peftsearch.report.importance import importance
from peftsearch.report.page import page, plotly_js
from peftsearch.report.provenance import provenance
from peftsearch.report.tables import all_trials, tasks, without_score
from peftsearch.report.winner import winner
from peftsearch.study.record import Record, read_record
from peftsearch.units import plural


def write_report(run: Path, output: Path | None = None, storage: str = "") -> Path:
    """Write the page of a run.

    Args:
        run: Folder of a run, finished or not.
        output: File to write; None is `report.html` in the folder.
        storage: Optuna storage URL of the run; empty for SQLite in the folder.

    Returns:
        The file.

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
    return path


def write_up(record: Record) -> str:
    """Render the page of a study as HTML."""
    settings = record.settings
    sections = [
        winner(record),
        comparison(record),
        stages(record),
        course(record),
        front(record),
        importance(record),
        tasks(record),
        without_score(record),
        all_trials(record),
        provenance(record),
    ]
    title = f"{settings.task or 'study'} on {settings.model or 'a model'}, budget {settings.budget}"
    n_done = len(record.scored)
    subtitle = f"peftsearch report of {record.path.resolve().name}: {plural(len(record.search), 'trial')} of the "
    subtitle += f"search, {n_done} with a score; {plural(len(record.confirm), 'full training')}"
    return page(title, [s for s in sections if s is not None], subtitle)
