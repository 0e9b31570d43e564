"""Find the finished study of a command, to show its result without loading a model."""

from __future__ import annotations

from pathlib import Path

from peftsearch.design.references import parse_references
from peftsearch.errors import PeftSearchError
from peftsearch.files import to_plain
from peftsearch.searcher.options import NOT_STORED, RunOptions
from peftsearch.study.best import BEST, Best, read_best
from peftsearch.study.folder import read_settings
from peftsearch.study.settings import StudySettings


def find_finished(options: RunOptions) -> tuple[Path, Best] | None:
    """The folder and the result of a finished study that was started with equal options on equal data.

    Args:
        options: The options of the run.

    Returns:
        None where there is none, or where that cannot be told without loading the model.
    """
    study, search = options.study, options.search
    if study.storage or any(
        name.endswith((".yaml", ".yml")) or ":" in name for name in (search.space, search.strategy)
    ):
        return None  # files and objects of the user may have changed
    own = {key: value for key, value in to_plain(options).items() if key not in NOT_STORED}
    pattern = f"*/{BEST}" if study.name is None else f"{study.name}/{BEST}"
    for path in sorted(study.runs.glob(pattern)):
        try:
            settings = read_settings(path.parent)
            if settings.options == own and _same_data(options, settings):
                best = read_best(path.parent)[1]
                trained = {row.name for row in best.comparison if row.reference}
                return (path.parent, best) if trained >= set(parse_references(options.baselines)) else None
        except PeftSearchError:
            continue  # the run itself says what is wrong
    return None


def _same_data(options: RunOptions, settings: StudySettings) -> bool:
    """Whether files and embedded tasks are as they were; data of the hub are taken to be."""
    from peftsearch.searcher.prepare import suite_of
    from peftsearch.tasks import EMBEDDED, names_of

    local = options.task.train is not None or all(name in (None, *EMBEDDED) for name in names_of(options.task))
    return not local or suite_of(options).fingerprint == settings.task_fingerprint
