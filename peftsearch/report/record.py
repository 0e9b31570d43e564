"""What is stored of a study, read without changing it: settings, trials, what was decided and concluded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import optuna
import sqlalchemy.exc
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import URL, make_url

from peftsearch.design.design import Design
from peftsearch.design.references import REFERENCES
from peftsearch.design.text import design_line
from peftsearch.errors import ConfigError, StudyError, one_line
from peftsearch.files import MAX_OUTPUT_BYTES, read_yaml
from peftsearch.study.folder import read_settings
from peftsearch.study.storage import storage_faults
from peftsearch.study.trials import INTERRUPTED, KIND, STAGE

_STATES = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialRecord:
    """One trial as the report needs it."""

    number: int
    """Optuna's number, in its own study."""
    name: str
    kind: str
    """`baseline`, `search`, `confirm` or `reference`."""
    state: str
    """`complete`, `pruned`, `failed`, `running`, `waiting`, `infeasible` (does not fit) or `interrupted`."""
    stage: str
    """Stage of a staged sampler; empty without one."""
    score: float | None
    """Validation score; None unless complete."""
    design: str
    """The design in one line."""
    params: Mapping[str, Any]
    """Choices of the space's dimensions; those of groups that are not tuned are left out, since they mean nothing."""
    facts: Mapping[str, Any]
    """All user attributes."""
    trial: FrozenTrial

    @property
    def measures(self) -> dict[str, float]:
        """What was measured of the design: `params`, `step_s`, ...; studies of old have the parameters alone."""
        found = self.facts.get("measures")
        own = {"params": self.facts.get("n_params")} | (dict(found) if isinstance(found, Mapping) else {})
        return {str(k): float(v) for k, v in own.items() if isinstance(v, (int, float)) and v == v}

    @property
    def violations(self) -> tuple[str, ...]:
        """Constraints that the design breaks."""
        return tuple(map(str, self.facts.get("violations") or ()))

    @property
    def reason(self) -> str:
        """Why there is no score."""
        return str(self.facts.get("reason", "")) or ("a killed process left it" if self.state == "interrupted" else "")


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """All that is stored of a study."""

    path: Path
    settings: Mapping[str, Any]
    best: Mapping[str, Any] | None
    """Content of `best.yaml`; None while the run is not finished."""
    search: tuple[TrialRecord, ...]
    confirm: tuple[TrialRecord, ...]
    stages: tuple[Mapping[str, Any], ...]
    """Closed stages, as `samplers.s4.StageRecord.to_dict` writes them."""
    test_scores: Mapping[str, float]
    """Test scores under `name/seed`."""
    references: tuple[str, ...]
    """Names of the references."""

    @property
    def metric(self) -> str:
        """Name of the score."""
        return str(self.settings.get("metric", "score"))

    @property
    def objectives(self) -> tuple[str, ...]:
        """What the search optimises; the score alone unless the settings say more."""
        return objectives_of(self.settings)

    @property
    def scored(self) -> tuple[TrialRecord, ...]:
        """Trials of the search, baselines among them, with a score and within the constraints."""
        return tuple(t for t in self.search if t.score is not None and not t.violations)

    @property
    def pick(self) -> str | None:
        """Name of the design that the run concluded on."""
        return None if self.best is None else str(self.best.get("name"))


def objectives_of(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the objectives in the order of a trial's values."""
    found = settings.get("objectives")
    return tuple(map(str, found)) if isinstance(found, Sequence) and not isinstance(found, str) else ("score",)


def read_record(path: Path, storage: str = "") -> Record:
    """Read a run's folder and its studies.

    Args:
        path: The folder `runs/NAME`.
        storage: The Optuna storage URL that the run was given; empty for `study.db` in the folder.

    Raises:
        StudyError: It is no run, has no trials, or its files are damaged.
    """
    if not path.is_dir():
        raise StudyError(f"{path}: is not the folder of a run; give one that `peftsearch run` made, such as runs/NAME")
    settings = read_settings(path)
    with storage_faults(storage or path):
        backend = _open(path, settings, storage)
        try:
            prefix = f"{path.resolve().name}-{settings.get('id')}/" if storage else ""
            ids = {s.study_name.removeprefix(prefix): s._study_id for s in backend.get_all_studies()
                   if s.study_name.startswith(prefix)}  # fmt: skip
            trials = {name: backend.get_all_trials(i, deepcopy=False) for name, i in ids.items()}
            attributes = {name: backend.get_study_user_attrs(i) for name, i in ids.items()}
        finally:
            backend.remove_session()
            backend.engine.dispose()
    if "search" not in ids:
        raise StudyError(f"{storage or path / 'study.db'}: holds no study of this run; `peftsearch run` resumes it")
    if not trials["search"]:
        raise StudyError(f"{path}: the study has no trials yet; `peftsearch run` with its settings goes on with it")
    objectives = objectives_of(settings)
    confirm = tuple(trial_record(t, "confirm", objectives) for t in trials.get("confirm", ()))
    kept = attributes.get("confirm", {})
    own_tests = {f"{t.name}/{t.facts['seed']}": t.facts["test_score"] for t in confirm if "test_score" in t.facts}
    return Record(
        path=path,
        settings=settings,
        best=_read_best(path),
        search=tuple(trial_record(t, "search", objectives) for t in trials["search"]),
        confirm=confirm,
        stages=tuple(attributes["search"].get("stages", ())),
        test_scores=dict(kept.get("test_scores", {})) | own_tests,
        references=tuple(map(str, kept.get(REFERENCES, ()))),
    )


def _open(path: Path, settings: Mapping[str, Any], storage: str) -> optuna.storages.RDBStorage:
    """Open a storage for reading: no table, no version and no file is made; SQLite in the folder is read-only."""
    own = path / "study.db"
    stored = str(settings.get("storage", own.name))
    if not storage and stored != own.name:
        raise StudyError(f"{path}: its trials are not in the folder; give --storage with the run's URL, {stored}")
    if not storage and not own.is_file():
        raise StudyError(f"{path}: holds no {own.name}; `peftsearch run` with its settings starts anew")
    # a write that a kill cut short leaves a journal: SQLite takes it back on opening, and must be able to write then
    query = {"mode": "rw" if own.with_name(f"{own.name}-journal").exists() else "ro", "uri": "true"}
    read_only = URL.create("sqlite", database=f"file:{quote(str(own.resolve()))}", query=query)
    url = storage or read_only.render_as_string()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        database = make_url(storage).database if storage else None
        if storage.startswith("sqlite") and not (database and Path(database).is_file()):
            raise StudyError(f"--storage {storage!r}: there is no such database")
        return optuna.storages.RDBStorage(url, skip_compatibility_check=True, skip_table_creation=True)
    except (ImportError, sqlalchemy.exc.ArgumentError) as error:
        raise StudyError(f"--storage {storage!r} cannot be opened: {one_line(error)}") from error


def _read_best(path: Path) -> Mapping[str, Any] | None:
    if not (path / "best.yaml").exists():
        return None
    try:
        return read_yaml(path / "best.yaml", MAX_OUTPUT_BYTES)
    except ConfigError as error:
        raise StudyError(f"the result of the run is damaged: {error}") from error


def trial_record(trial: FrozenTrial, study: str, objectives: Sequence[str] = ("score",)) -> TrialRecord:
    """What the report needs of a stored trial.

    Args:
        trial: As Optuna keeps it.
        study: `search` or `confirm`.
        objectives: Names of its values.
    """
    facts = trial.user_attrs
    state = _STATES[trial.state]
    if facts.get(INTERRUPTED):
        state = "interrupted"
    elif facts.get("infeasible"):
        state = "infeasible"
    return TrialRecord(
        number=trial.number,
        name=str(facts.get("name") or facts.get("baseline") or f"number {trial.number}"),
        kind=str(facts.get(KIND, study)),
        state=state,
        stage=str(trial.system_attrs.get(STAGE, "")),
        score=_score(trial, objectives) if trial.state == TrialState.COMPLETE else None,
        design=_design_line(facts.get("design")),
        params=_meaningful(trial.params),
        facts=facts,
        trial=trial,
    )


def _score(trial: FrozenTrial, objectives: Sequence[str]) -> float | None:
    stated = trial.user_attrs.get("score")
    values = trial.values or []
    if stated is None and len(values) == 1:
        stated = values[0]
    if stated is None and "score" in objectives and len(values) == len(objectives):
        stated = values[list(objectives).index("score")]
    return float(stated) if stated is not None and stated == stated else None


def _design_line(data: Any) -> str:
    if not isinstance(data, Mapping):
        return ""
    try:
        return design_line(Design.from_dict(data))
    except (ConfigError, IndexError):
        return one_line(dict(data))  # of another version: shown as it is stored


def _meaningful(params: Mapping[str, Any]) -> dict[str, Any]:
    tuned = params.get("tunable")
    if tuned is None:
        return dict(params)
    groups = str(tuned).split("+")
    return {k: v for k, v in params.items() if not k.startswith("methods.") or k.removeprefix("methods.") in groups}
