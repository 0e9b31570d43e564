"""The designs of studies as points: a score and all measured costs, read from the storage; nothing is changed.

A confirmed design is a point of the mean over its seeds; a trial of the search or a baseline's first training is a
point of one seed at a lower fidelity. The two are never mixed, as their scores are of different trainings.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from peftsearch.design.design import Design
from peftsearch.design.text import design_line
from peftsearch.errors import ConfigError, StudyError
from peftsearch.files import MAX_OUTPUT_BYTES, read_yaml
from peftsearch.searcher.verdict import hits_of
from peftsearch.study.folder import read_settings
from peftsearch.study.storage import open_storage, own_url, quiet_optuna, storage_faults, study_prefix
from peftsearch.study.trials import INTERRUPTED, KIND, score_of


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """A design with its score and its costs."""

    study: str
    """Name of the study's folder."""
    budget: str
    """The study's budget as the user wrote it."""
    budget_params: int
    """The same in trainable parameters."""
    name: str
    """Baseline's name, or `trial 17`."""
    baseline: str
    """Baseline's name; empty for designs of the search."""
    confirmed: bool
    """Whether the score is a mean over seeds at full fidelity."""
    scores: tuple[float, ...]
    """Validation score of each seed."""
    steps: int
    """Optimizer steps of each training."""
    measures: Mapping[str, float] = field(default_factory=dict)
    """Costs by the name of the measure (`params`, `latency_s`, ...); means over seeds."""
    hits: tuple[float, ...] = ()
    """Share of the seeds whose prediction is right, for each validation example."""
    objectives: tuple[float, ...] = ()
    """Values in the order of the study's objectives; empty where there is but one."""
    violations: str = ""
    """Which constraints the design violates; such designs are on no front."""
    detail: str = ""
    """The design in one line."""

    @property
    def score(self) -> float:
        """Mean over seeds."""
        return mean(self.scores)

    @property
    def std(self) -> float | None:
        """Standard deviation over seeds (n - 1); None below two."""
        return stdev(self.scores) if len(self.scores) > 1 else None


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyPoints:
    """All points of one study."""

    path: Path
    settings: Mapping[str, Any]
    objectives: tuple[str, ...]
    """What the study searches for; `score` alone for studies of one objective."""
    points: tuple[Point, ...]
    n_validation: int | None
    """Validation examples; None where the study does not say."""


def read_points(path: Path, storage: str = "") -> StudyPoints:
    """Read a study.

    Args:
        path: Its folder.
        storage: Its storage URL, where it is not the folder's own SQLite.

    Raises:
        StudyError: There is none, or it cannot be read, or no trial of it has a score.
    """
    settings = read_settings(path)
    objectives = tuple(map(str, settings.get("objectives") or ("score",)))
    with storage_faults(path):
        search, confirm = _trials(path, settings, storage)
    points = [*_confirmed(path, settings, confirm), *(_single(path, settings, objectives, t) for t in search)]
    if not points:
        raise StudyError(f"{path}: no trial has a score yet; `peftsearch run` with its settings goes on with it")
    n_hits = max((len(p.hits) for p in points), default=0)
    return StudyPoints(
        path=path,
        settings=settings,
        objectives=objectives,
        points=tuple(points),
        n_validation=n_hits or _n_validation(path),
    )


def _trials(path: Path, settings: Mapping[str, Any], storage: str) -> tuple[list[FrozenTrial], list[FrozenTrial]]:
    own = settings.get("storage", "study.db") == "study.db"
    if not own and not storage:
        raise StudyError(f"{path}: its trials are in {settings['storage']}; give that URL with --storage")
    if own and not (path / "study.db").is_file():
        raise StudyError(f"{path}: its storage study.db is missing")
    prefix = "" if own else study_prefix(path.name, str(settings.get("id")))
    quiet_optuna()
    kept = open_storage(own_url(path) if own else storage)
    try:
        studies = [optuna.load_study(study_name=f"{prefix}{name}", storage=kept) for name in ("search", "confirm")]
        search, confirm = (s.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)) for s in studies)
    except KeyError as error:
        raise StudyError(f"{path}: its storage does not hold its studies; is --storage the right one?") from error
    finally:
        kept.remove_session()
        kept.engine.dispose()
    return _counting(search), _counting(confirm)


def _counting(trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    """Without interrupted trials, and without references: they keep to no budget, and belong on no front."""
    return [t for t in trials if not t.user_attrs.get(INTERRUPTED) and t.user_attrs.get(KIND) != "reference"]


def _single(path: Path, settings: Mapping[str, Any], objectives: tuple[str, ...], trial: FrozenTrial) -> Point:
    """A training of the search or of a baseline."""
    facts = trial.user_attrs
    baseline = facts.get(KIND) == "baseline"
    return Point(
        **_common(path, settings, [trial]),
        baseline=str(facts.get("family", facts["name"])) if baseline else "",
        confirmed=False,
        scores=(score_of(trial),),
        objectives=tuple(map(float, trial.values)) if len(objectives) > 1 else (),
        violations="; ".join(map(str, facts.get("violations", ()))),
    )


def _confirmed(path: Path, settings: Mapping[str, Any], trials: Sequence[FrozenTrial]) -> list[Point]:
    """The confirmed designs, each over its seeds."""
    groups: dict[str, list[FrozenTrial]] = {}
    for trial in trials:
        groups.setdefault(str(trial.user_attrs["name"]), []).append(trial)
    return [
        Point(
            **_common(path, settings, group),
            baseline="" if name.startswith("trial ") else str(group[0].user_attrs.get("family", name)),
            confirmed=True,
            scores=tuple(score_of(t) for t in group),
            hits=hits_of([str(t.user_attrs.get("right", "")) for t in group]),
            violations="; ".join(dict.fromkeys(str(v) for t in group for v in t.user_attrs.get("violations", ()))),
        )
        for name, group in groups.items()
    ]


def _common(path: Path, settings: Mapping[str, Any], trials: Sequence[FrozenTrial]) -> dict[str, Any]:
    facts = trials[0].user_attrs
    try:
        detail = design_line(Design.from_dict(facts["design"]))
    except ConfigError:
        detail = ""  # written by a newer version; the point stands without its picture
    measured = [{"params": facts["n_params"], **t.user_attrs.get("measures", {})} for t in trials]
    return {
        "study": path.name,
        "budget": str(settings.get("budget", "")),
        "budget_params": int(settings.get("budget_params", 0)),
        "name": str(facts["name"]),
        "steps": int(facts.get("steps", 0)),
        "measures": {
            key: value if key == "params" else mean(float(m[key]) for m in measured)
            for key, value in measured[0].items()
            if all(_is_number(m.get(key)) for m in measured)
        },
        "detail": detail,
    }


def _is_number(value: object) -> bool:
    """Whether a measure was taken: one that failed may be missing or no number."""
    return isinstance(value, (int, float)) and math.isfinite(value)


def _n_validation(path: Path) -> int | None:
    try:
        return int(read_yaml(path / "best.yaml", MAX_OUTPUT_BYTES)["task"]["n_validation"])
    except (ConfigError, KeyError, TypeError, ValueError):
        return None
