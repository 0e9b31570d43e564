"""Read what a trial of a study says of itself."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from optuna.trial import FrozenTrial, TrialState

REPLICATE = "peftsearch:replicate"
"""System attribute of a trial: trials with equal numbers share their training seed (absent means 0)."""
STAGE = "peftsearch:stage"
"""System attribute of a trial: the stage it belongs to, for the display and the report."""
INTERRUPTED = "interrupted"
"""User attribute of a failed trial that a killed process left behind; it is run anew and counts for nothing."""
KIND = "kind"
"""User attribute of a trial: `baseline`, or `reference` among the confirmations; others have none."""
PLACE = "place"
"""User attribute of a trial of the search: its number among those that count, from 1. A retry takes the same place."""
CONSTRAINTS = "constraints"
"""User attribute of a trial: numbers, none of which may be above 0; Optuna's samplers read a system attribute."""


def counts(trial: FrozenTrial) -> bool:
    """Whether a trial of the search counts: it is no baseline, and none that a killed process left behind."""
    begun = trial.state != TrialState.WAITING and not trial.user_attrs.get(INTERRUPTED)
    return begun and trial.user_attrs.get(KIND) != "baseline"


def counted(trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    """The trials of the search that count."""
    return [t for t in trials if counts(t)]


def next_place(trials: Iterable[FrozenTrial]) -> int:
    """The place of the next trial: the smallest number from 1 that no trial that counts has.

    Without interruptions it is the number of trials so far, plus one. Trials without a place fill the gaps in order.
    """
    own = [t.user_attrs.get(PLACE) for t in counted(trials)]
    taken = {place for place in own if place is not None}
    place = 1
    for _ in range(own.count(None) + 1):
        while place in taken:
            place += 1
        taken.add(place)
    return place


def score_of(trial: FrozenTrial) -> float:
    """The validation score of a completed trial, whatever else the study optimises."""
    stated = trial.user_attrs.get("score")
    return float(trial.values[0] if stated is None else stated)


def derived_seed(*parts: object) -> int:
    """A seed of 32 bits from any parts, the same on every machine."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:4], "big")
