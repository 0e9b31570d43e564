"""Read the record of a study without changing it: settings, trials, decisions and result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import optuna
import sqlalchemy.exc
from sqlalchemy.engine import URL, make_url

from peftsearch.errors import MALFORMED, ConfigError, StudyError, one_line
from peftsearch.study.best import BEST, Best, read_best
from peftsearch.study.confirmed import Confirmed
from peftsearch.study.folder import read_settings
from peftsearch.study.hits import hits_of
from peftsearch.study.notes import Notes
from peftsearch.study.settings import OWN_STORAGE, StudySettings
from peftsearch.study.storage import storage_faults, study_prefix
from peftsearch.study.trial_record import TrialRecord
from peftsearch.study.trials import Kind, busy_seconds
from peftsearch.tasks.own_metric import short_name
from peftsearch.units import Scores


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """Everything that is stored about a study."""

    path: Path
    settings: StudySettings
    best: Best | None
    """Result of the run; None while the run is not finished."""
    search: tuple[TrialRecord, ...]
    confirm: tuple[TrialRecord, ...]
    stages: tuple[Mapping[str, Any], ...]
    """Closed stages, as `samplers.stages.StageRecord.to_dict` writes them."""
    references: tuple[str, ...]
    """Names of the references."""
    busy_s: float = 0.0
    """Seconds in which any trial ran; see `busy_seconds`."""

    @property
    def metric(self) -> str:
        """Name of the score."""
        return short_name(self.settings.metric)

    @property
    def objectives(self) -> tuple[str, ...]:
        """The objectives of the search, in the order of a trial's values."""
        return self.settings.objectives

    @property
    def scored(self) -> tuple[TrialRecord, ...]:
        """Trials of the search up to the first rung, including baselines, with a score and within the constraints."""
        first = (t for t in self.search if t.kind in (Kind.SEARCH, Kind.BASELINE))
        return tuple(t for t in first if t.score is not None and not t.violations)

    def confirmed(self) -> list[Confirmed]:
        """The confirmed designs with a score, best mean first, then the references."""
        baselines = {t.name for t in self.search if t.is_baseline}
        short = {t.name: t.score for t in self.search if t.score is not None}
        scored = [t for t in self.confirm if t.score is not None]
        found = []
        for name in dict.fromkeys(t.name for t in scored):
            own = [t for t in scored if t.name == name]
            found.append(
                Confirmed(
                    name=name,
                    baseline=name in baselines,
                    reference=own[0].kind == Kind.REFERENCE,
                    family=own[0].facts.family or "",
                    detail=own[0].detail,
                    n_params=own[0].facts.n_params,
                    n_changed=own[0].n_changed,
                    share=own[0].facts.share,
                    search_score=short.get(name),
                    validation=Scores(tuple(t.score for t in own if t.score is not None)),
                    test=Scores(tuple(t.facts.test_score for t in own if t.facts.test_score is not None)),
                    validation_hits=hits_of([t.facts.right or "" for t in own]),
                    hits=hits_of([t.facts.test_right or "" for t in own]),
                )
            )
        return sorted(found, key=lambda c: (c.reference, -c.mean))

    @property
    def pick(self) -> str | None:
        """Name of the design that the run picked; None while the run is not finished."""
        return None if self.best is None else self.best.name


_DAMAGED = "the study is damaged, or was written by another program; restore it from a copy"


def read_record(path: Path, storage: str = "") -> Record:
    """Read a run's folder and its studies.

    Args:
        path: The folder `runs/NAME`.
        storage: The Optuna storage URL of the run; empty for `study.db` in the folder.

    Raises:
        StudyError: The folder is not a run, has no trials, or has damaged files.
    """
    try:
        return _read(path, storage)
    except (*MALFORMED, LookupError) as error:
        raise StudyError(f"{storage or path}: {_DAMAGED} ({one_line(error, 120)})") from error


def _read(path: Path, storage: str) -> Record:
    if not path.is_dir():
        raise StudyError(f"{path}: is not the folder of a run; give one that `peftsearch run` made, such as runs/NAME")
    settings = read_settings(path)
    with storage_faults(storage or path):
        backend = _open(path, settings, storage)
        try:
            prefix = study_prefix(path.resolve().name, settings.id) if storage else ""
            names = [s.study_name for s in backend.get_all_studies() if s.study_name.startswith(prefix)]
            ids = {name.removeprefix(prefix): backend.get_study_id_from_name(name) for name in names}
            trials = {name: backend.get_all_trials(i, deepcopy=False) for name, i in ids.items()}
            attributes = {name: backend.get_study_user_attrs(i) for name, i in ids.items()}
        finally:
            backend.remove_session()
            backend.engine.dispose()
    if "search" not in ids:
        raise StudyError(f"{storage or path / 'study.db'}: holds no study of this run; `peftsearch run` resumes it")
    if not any(trials.values()):
        raise StudyError(f"{path}: the study has no trials yet; `peftsearch run` with its settings continues it")
    for own in trials.values():
        if len({trial.number for trial in own}) < len(own):
            raise ValueError("two trials have one number")
    objectives = settings.objectives
    notes = Notes.of(attributes["search"], attributes.get("confirm", {}))
    return Record(
        path=path,
        settings=settings,
        best=_read_best(path),
        search=tuple(TrialRecord.of(t, Kind.SEARCH, objectives) for t in trials["search"]),
        confirm=tuple(TrialRecord.of(t, Kind.CONFIRM, objectives) for t in trials.get("confirm", ())),
        stages=notes.stages,
        references=notes.references,
        busy_s=busy_seconds(t for own in trials.values() for t in own),
    )


def _open(path: Path, settings: StudySettings, storage: str) -> optuna.storages.RDBStorage:
    """Open a storage for reading: creates no table, version or file; SQLite in the folder is opened read-only."""
    own = path / OWN_STORAGE
    if not storage and not settings.in_folder:
        raise StudyError(
            f"{path}: its trials are not in the folder; give --storage with the run's URL, {settings.storage}"
        )
    if not storage and not own.is_file():
        raise StudyError(f"{path}: holds no {own.name}; `peftsearch run` with its settings starts over")
    # A write cut short by a kill leaves a journal: SQLite rolls it back on opening, and needs write access for that.
    query = {"mode": "rw" if own.with_name(f"{own.name}-journal").exists() else "ro", "uri": "true"}
    read_only = URL.create("sqlite", database=f"file:{quote(str(own.resolve()))}", query=query)
    url = storage or read_only.render_as_string()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        database = make_url(storage).database if storage else None
        if storage.startswith("sqlite") and not (database and Path(database).is_file()):
            raise StudyError(f"--storage {storage!r}: there is no such database")
        return optuna.storages.RDBStorage(url, skip_compatibility_check=True, skip_table_creation=True)
    except (ImportError, sqlalchemy.exc.ArgumentError, ValueError) as error:
        raise StudyError(f"--storage {storage!r} cannot be opened: {one_line(error)}") from error


def _read_best(path: Path) -> Best | None:
    if not (path / BEST).exists():
        return None
    try:
        return read_best(path)[1]
    except ConfigError as error:
        raise StudyError(f"the result of the run is damaged: {error}") from error
