"""`peftsearch report`: read a run, write its page."""

from __future__ import annotations

from pathlib import Path

from peftsearch.errors import ReportError
from peftsearch.report.comparison import comparison
from peftsearch.report.course import course, stages
from peftsearch.report.front import front
from peftsearch.report.importance import importance
from peftsearch.report.page import page, plotly_js
from peftsearch.report.provenance import provenance
from peftsearch.report.record import Record, read_record
from peftsearch.report.tables import all_trials, tasks, without_score
from peftsearch.report.winner import winner


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


def write_up(record: Record) -> str:
    """The page of a study."""
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
    title = (
        f"{settings.get('task', 'study')} on {settings.get('model', 'a model')}, budget {settings.get('budget', '')}"
    )
    n_done = len(record.scored)
    subtitle = f"peftsearch report of {record.path.resolve().name}: {len(record.search)} trials of the search, "
    subtitle += f"{n_done} with a score; {len(record.confirm)} full trainings"
    return page(title, [s for s in sections if s is not None], subtitle)
