"""Notes that a study keeps in addition to its trials, in Optuna's study attributes: one name and one form each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna

SENSITIVITY = "sensitivity"
"""Name under which the gradient scores of a search are kept."""
_SETTINGS, _STAGES, _FROZEN, _REFERENCES = "settings", "stages", "frozen", "references"


@dataclass(frozen=True, kw_only=True, slots=True)
class Frozen:
    """Scores of the frozen model of a generation task."""

    score: float
    right: str
    """Score on each reported example, packed by `hits.packed_hits`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Notes:
    """The notes of a run's two studies."""

    stages: tuple[Mapping[str, Any], ...] = ()
    """Closed stages, as `samplers.stages.StageRecord.to_dict` gives them."""
    references: tuple[str, ...] = ()
    """Names of the references."""

    @classmethod
    def of(cls, search: Mapping[str, Any], confirm: Mapping[str, Any]) -> Notes:
        """Read the attributes of both studies."""
        return cls(
            stages=tuple(search.get(_STAGES, ())),
            references=tuple(map(str, confirm.get(_REFERENCES, ()))),
        )


def settings_of(study: optuna.Study) -> dict[str, Any] | None:
    """The settings that a search keeps for workers that cannot see its folder."""
    stored = study.user_attrs.get(_SETTINGS)
    return stored if isinstance(stored, dict) else None


def keep_settings(study: optuna.Study, settings: Mapping[str, Any]) -> None:
    """Keep the settings in the storage."""
    study.set_user_attr(_SETTINGS, dict(settings))


def stages_of(search: optuna.Study) -> list[dict[str, Any]]:
    """The closed stages of a staged search."""
    return list(search.user_attrs.get(_STAGES, ()))


def keep_stages(search: optuna.Study, stages: Sequence[Mapping[str, Any]]) -> None:
    """Keep the closed stages."""
    search.set_user_attr(_STAGES, list(stages))


def frozen_of(confirm: optuna.Study) -> Frozen | None:
    """The score of the frozen model; None if not measured yet."""
    kept = confirm.user_attrs.get(_FROZEN)
    return None if kept is None else Frozen(**kept)


def keep_frozen(confirm: optuna.Study, frozen: Frozen) -> None:
    """Keep the score of the frozen model."""
    confirm.set_user_attr(_FROZEN, {"score": frozen.score, "right": frozen.right})


def add_references(confirm: optuna.Study, asked: Sequence[str] = ()) -> tuple[str, ...]:
    """Add references to those that a study keeps.

    Args:
        confirm: The study of the confirmation.
        asked: Names of the references that this process was asked for.

    Returns:
        Names of all references that any process of the study was asked for.
    """
    known = list(confirm.user_attrs.get(_REFERENCES, ()))
    names = list(dict.fromkeys([*known, *asked]))
    if names != known:
        confirm.set_user_attr(_REFERENCES, names)
    return tuple(names)


def sensitivity_of(search: optuna.Study) -> dict[str, Any] | None:
    """The gradient scores of a search and the designs that they suggest; None if not measured yet.

    Returns:
        `scores`, a list of [stack, block, method, score], and `designs`, points of the space.
    """
    kept: dict[str, Any] | None = search.user_attrs.get(SENSITIVITY)
    return kept


def keep_sensitivity(search: optuna.Study, scores: Mapping[str, Any]) -> None:
    """Keep the gradient scores and the designs that they suggest."""
    search.set_user_attr(SENSITIVITY, dict(scores))
