"""Put the sections of a study's page together."""

from __future__ import annotations

from peftsearch.report.comparison import comparison
from peftsearch.report.course import course, stages
from peftsearch.report.front import front
from peftsearch.report.importance import importance
from peftsearch.report.page import page
from peftsearch.report.provenance import provenance
from peftsearch.report.tables import all_trials, tasks, without_score
from peftsearch.report.winner import winner
from peftsearch.study.record import Record


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
    title = f"{settings.task or 'study'} on {settings.model or 'a model'}, budget {settings.budget}"
    n_done = len(record.scored)
    subtitle = f"peftsearch report of {record.path.resolve().name}: {len(record.search)} trials of the search, "
    subtitle += f"{n_done} with a score; {len(record.confirm)} full trainings"
    return page(title, [s for s in sections if s is not None], subtitle)
