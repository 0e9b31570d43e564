"""Find the finished study of a command, to show its result without loading a model."""

from __future__ import annotations

from pathlib import Path

from peftsearch.design.references import parse_references
from peftsearch.errors import PeftSearchError
from peftsearch.searcher.options import RunOptions, stored_options
from peftsearch.study.best import BEST, Best, read_best
from peftsearch.study.folder import read_settings
from peftsearch.study.settings import StudySettings
from peftsearch.tasks.own_metric import is_own


def find_finished(options: RunOptions) -> tuple[Path, Best] | None:
    """The folder and the result of a finished study that was started with equal options on equal data.

    A study that was extended since counts, too: its result stands on more than was asked for.

    Args:
        options: The options of the run.

    Returns:
        None where there is none, or where that cannot be told without loading the model.
    """
    study = options.study
    if study.storage or _may_have_changed(options):
        return None
    own = stored_options(options)
    pattern = f"*/{BEST}" if study.name is None else f"{study.name}/{BEST}"
    for path in sorted(study.runs.glob(pattern)):
        try:
            settings = read_settings(path.parent)
            if own in (settings.options, settings.began) and _is_as_it_was(options, settings):
                best = read_best(path.parent)[1]
                trained = {row.name for row in best.comparison if row.reference}
                return (path.parent, best) if trained >= set(parse_references(options.baselines)) else None
        except PeftSearchError:
            continue  # the run itself says what is wrong
    return None


def _may_have_changed(options: RunOptions) -> bool:
    """Whether the options name files or code of the user that are compared only when they are loaded."""
    search, metric = options.search, options.task.metric
    of_user = any(name.endswith((".yaml", ".yml")) or ":" in name for name in (search.space, search.strategy))
    of_model = options.model.anatomy is not None or options.model.subspace is not None
    return of_user or of_model or (metric is not None and is_own(metric))


def _is_as_it_was(options: RunOptions, settings: StudySettings) -> bool:
    """Whether local models and data are as they were; those of the hub are taken to be."""
    from peftsearch.backbone.folder import find_folder, fingerprint_folder
    from peftsearch.searcher.prepare import suite_of
    from peftsearch.tasks import EMBEDDED, names_of

    model = options.model.name
    folder = None if model is None else find_folder(model)
    if folder is not None and fingerprint_folder(folder) != settings.revision:
        return False
    names = names_of(options.task)
    local = options.task.train is not None or all(
        name is None or name in EMBEDDED or Path(name).exists() for name in names
    )
    return not local or suite_of(options).fingerprint == settings.task_fingerprint
