"""The record of a trial: the only module that knows which attributes of an Optuna trial hold its facts.

Facts are written by `write_facts` and read by `facts_of`, and by `TrialRecord` for reports and tables. Functions that a
sampler calls on every trial of a long history read only the attribute that they need.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from enum import StrEnum
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from peftsearch.study.private_optuna import write_system_attribute, write_user_attribute

_GAP_S = 30.0
"""Seconds without a running trial that still count as time of the run; after more the run was stopped."""


class Phase(StrEnum):
    """The part of a search that a trial belongs to."""

    BASELINES = "baselines"
    SEARCH = "search"
    PROMOTE = "promote"
    REPEAT = "repeat"
    RATES = "rates"
    CONFIRM = "confirm"
    REFERENCES = "references"


class Kind(StrEnum):
    """The role of a trial."""

    BASELINE = "baseline"
    SEARCH = "search"
    PROMOTED = "promoted"
    """A baseline or a trial of the search that goes on from one rung to the next."""
    REPEAT = "repeat"
    """A baseline or a trial of the search with another seed, up to the last rung."""
    RATE = "rate"
    """A baseline or a trial of the search at another learning rate, up to any rung."""
    CONFIRM = "confirm"
    REFERENCE = "reference"


class State(StrEnum):
    """The state of a trial."""

    COMPLETE = "complete"
    PRUNED = "pruned"
    FAILED = "failed"
    RUNNING = "running"
    WAITING = "waiting"
    INFEASIBLE = "infeasible"
    """The design does not fit the budget or the memory."""
    INTERRUPTED = "interrupted"
    """A killed process left the trial unfinished; it counts for nothing, and another trial takes its place."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialFacts:
    """The facts of a trial, each under its own name among Optuna's user attributes; None is not written."""

    name: str | None = None
    """Baseline's or reference's name, or `trial 17` by its place in the search."""
    kind: Kind | None = None
    """Baseline or reference; None for other trials."""
    baseline: str | None = None
    """Name of the baseline, written before the trial begins."""
    family: str | None = None
    """Name of the baseline without learning rate and share of the budget."""
    place: int | None = None
    """Number among the trials of the search that count, from 1; a retry takes the same place."""
    owner: str | None = None
    """The process that runs the trial; see `claims`."""
    design: Mapping[str, Any] | None = None
    """The design, as `Design.to_dict` gives it."""
    steps: int | None = None
    """Optimizer steps, with those of earlier rungs."""
    first: int | None = None
    """Step at which the trial went on from an earlier rung."""
    rung: int | None = None
    """Rung that the trial trained up to, from 0; None for confirmations."""
    baseline_too: bool | None = None
    """Whether a promoted or repeated trial, or one at another learning rate, trains a baseline."""
    arm: str | None = None
    """Name of the design that a trial trains at another learning rate."""
    seed: int | None = None
    """Seed of the training."""
    n_params: int | None = None
    """Trainable parameters, excluding the task head."""
    n_head: int | None = None
    """Trainable parameters of the head."""
    share: float | None = None
    """Share of the budget that is used."""
    learning_rate: float | None = None
    """Base learning rate."""
    value: float | None = None
    """What ranks the trial, the higher the better: the negative validation loss, or the score."""
    score: float | None = None
    """Validation score; the mean over the tasks."""
    loss: float | None = None
    """Mean validation loss; the mean over the tasks."""
    task_scores: Mapping[str, float] | None = None
    """Validation score of each task, for runs with several tasks."""
    test_score: float | None = None
    """Test score; the mean over the tasks."""
    test_loss: float | None = None
    """Mean test loss; the mean over the tasks."""
    test_right: str | None = None
    """Hit or score on each test example, packed by `hits.packed_hits`."""
    test_losses: str | None = None
    """Loss on each test example, packed by `hits.packed_hits`."""
    collapsed: int | None = None
    """Number of trainings that collapsed and were tried again at a lower rate."""
    right: str | None = None
    """Hit or score on each validation example, packed by `hits.packed_hits`."""
    train_loss: float | None = None
    """Mean training loss of the last tenth of the steps."""
    train_s: float | None = None
    """Time spent in training steps, in seconds."""
    wall_s: float | None = None
    """Total time, in seconds."""
    measures: Mapping[str, float] | None = None
    """Costs by the name of the measure."""
    violations: Sequence[str] | None = None
    """Limits that the measures exceed, in words."""
    reused_from: int | None = None
    """Number of the equal trial whose results are reused."""
    reason: str | None = None
    """Reason why there is no score."""
    infeasible: bool | None = None
    """Whether the design does not fit the budget or the memory."""
    interrupted: bool | None = None
    """Whether a killed process left the trial unfinished."""
    by_user: bool | None = None
    """Whether the user stopped the trial."""

    @property
    def exceeds_limits(self) -> bool:
        """Whether a measure exceeds a limit."""
        return bool(self.violations)

    def attributes(self) -> dict[str, Any]:
        """The facts that are known, by name."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: value for name, value in values.items() if value is not None}


_NAMES = frozenset(f.name for f in fields(TrialFacts))
CARRIED_OVER = ("value", "score", "loss", "task_scores", "n_head", "train_loss", "measures", "violations")
"""Facts that a trial copies from an equal one."""
_NOT_RETRIED = frozenset({"interrupted", "by_user", "reason", "owner"})
"""Facts of a lost trial that its retry does not copy."""
_REPLICATE, _STAGE, _SLOT = "peftsearch:replicate", "peftsearch:stage", "peftsearch:s4"
"""System attributes, which hold a sampler's notes rather than facts of the training."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Slot:
    """The place of a trial in a staged search."""

    stage: str
    choice: str | float
    """The choice that the stage compares."""
    repeat: int
    """Number of the repeat; trials with equal numbers share their training seed."""


def facts_of(trial: FrozenTrial) -> TrialFacts:
    """Read the facts of a trial."""
    return TrialFacts(**{name: value for name, value in trial.user_attrs.items() if name in _NAMES})


def write_facts(trial: optuna.Trial, facts: TrialFacts) -> None:
    """Write facts into a running trial of this process."""
    for name, value in facts.attributes().items():
        trial.set_user_attr(name, value)


def write_facts_of(study: optuna.Study, trial: FrozenTrial, facts: TrialFacts) -> None:
    """Write facts into a running trial, whichever process runs it."""
    for name, value in facts.attributes().items():
        write_user_attribute(study, trial, name, value)


def write_slot(study: optuna.Study, trial: FrozenTrial, slot: Slot) -> None:
    """Write the place in a staged search into a trial that is being sampled."""
    for key, value in slot_attributes(slot).items():
        write_system_attribute(study, trial, key, value)


def slot_attributes(slot: Slot) -> dict[str, Any]:
    """The system attributes that hold a place in a staged search."""
    noted = {"stage": slot.stage, "choice": slot.choice, "repeat": slot.repeat}
    return {_SLOT: noted, _REPLICATE: slot.repeat, _STAGE: slot.stage}


def slot_of(trial: FrozenTrial) -> Slot | None:
    """Read a trial's place in a staged search; None without stages."""
    noted = trial.system_attrs.get(_SLOT)
    return None if noted is None else Slot(**noted)


def stage_of(trial: FrozenTrial) -> str:
    """Read the name of a trial's stage; empty without stages."""
    return str(trial.system_attrs.get(_STAGE, ""))


def replicate_of(trial: FrozenTrial) -> int:
    """Read a trial's number among its repeats, which share their seeds; 0 without stages."""
    return int(trial.system_attrs.get(_REPLICATE, 0))


def retry_of(lost: FrozenTrial) -> FrozenTrial:
    """A running trial with the parameters, the facts and the sampler's notes of a lost trial.

    The pruner's notes on completed rungs are left out, because the retry reaches the rungs again.
    """
    return optuna.create_trial(
        state=TrialState.RUNNING,
        params=dict(lost.params),
        distributions=dict(lost.distributions),
        user_attrs={key: value for key, value in lost.user_attrs.items() if key not in _NOT_RETRIED},
        system_attrs={k: value for k, value in lost.system_attrs.items() if not k.startswith("completed_rung_")},
    )


def is_interrupted(trial: FrozenTrial) -> bool:
    """Whether a killed process left a trial unfinished."""
    return bool(trial.user_attrs.get("interrupted"))


def is_infeasible(trial: FrozenTrial) -> bool:
    """Whether a trial's design does not fit the budget or the memory."""
    return bool(trial.user_attrs.get("infeasible"))


def excess_of(trial: FrozenTrial) -> float:
    """The amount by which a trial exceeds the limits."""
    return sum(max(0.0, value) for value in trial.constraints.values())


def is_baseline(trial: FrozenTrial) -> bool:
    """Whether a trial trains a baseline up to the first rung."""
    return bool(trial.user_attrs.get("kind") == Kind.BASELINE)


_PHASES = {
    Kind.BASELINE: Phase.BASELINES,
    Kind.PROMOTED: Phase.PROMOTE,
    Kind.REPEAT: Phase.REPEAT,
    Kind.RATE: Phase.RATES,
    Kind.REFERENCE: Phase.REFERENCES,
}


def phase_of(kind: Kind | None, *, is_confirmed: bool) -> Phase:
    """The phase of a search that a trial belongs to, by its kind and the study that holds it."""
    own = Phase.CONFIRM if is_confirmed else Phase.SEARCH
    return own if kind is None else _PHASES.get(Kind(kind), own)


def is_further(trial: FrozenTrial) -> bool:
    """Whether a trial trains a known design: up to a later rung, with another seed, or at another learning rate."""
    return trial.user_attrs.get("kind") in (Kind.PROMOTED, Kind.REPEAT, Kind.RATE)


def arm_of(trial: FrozenTrial) -> str:
    """Name of the design that a trial trains, whatever the learning rate."""
    return str(trial.user_attrs.get("arm") or trial.user_attrs.get("name"))


def of_baseline(trial: FrozenTrial) -> bool:
    """Whether a trial trains a baseline, up to any rung."""
    return is_baseline(trial) or bool(trial.user_attrs.get("baseline_too"))


def rung_of(trial: FrozenTrial) -> int:
    """The rung that a trial of the search trains up to."""
    return int(trial.user_attrs.get("rung") or 0)


def is_reference(trial: FrozenTrial) -> bool:
    """Whether a trial trains the model's own weights."""
    return bool(trial.user_attrs.get("kind") == Kind.REFERENCE)


def place_of(trial: FrozenTrial) -> int | None:
    """Read a trial's place in the search; None for baselines and confirmations."""
    place: int | None = trial.user_attrs.get("place")
    return place


def not_interrupted(study: optuna.Study) -> list[FrozenTrial]:
    """The trials of a study that were not interrupted, including baselines."""
    return [trial for trial in study.get_trials(deepcopy=False) if not is_interrupted(trial)]


def counts(trial: FrozenTrial) -> bool:
    """Whether a trial is one of the search's own: begun, not of a known design, and not interrupted."""
    hidden = is_interrupted(trial) or is_baseline(trial) or is_further(trial)
    return trial.state != TrialState.WAITING and not hidden


def counted(trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    """The trials of the search that count."""
    return [t for t in trials if counts(t)]


def next_place(trials: Iterable[FrozenTrial]) -> int:
    """The place of the next trial: the smallest number from 1 that no counted trial has.

    Without interruptions, this is the number of trials so far plus one. Trials without a place fill the gaps in order.
    """
    own = [place_of(t) for t in counted(trials)]
    taken = {place for place in own if place is not None}
    place = 1
    for _ in range(own.count(None) + 1):
        while place in taken:
            place += 1
        taken.add(place)
    return place


def value_of(trial: FrozenTrial) -> float:
    """What ranks a completed trial, the higher the better, also in studies with several objectives."""
    stated = trial.user_attrs.get("value")
    return float(trial.values[0] if stated is None else stated)


def derived_seed(*parts: object) -> int:
    """Derive a 32-bit seed from any parts, the same on every machine."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:4], "big")


def busy_seconds(trials: Iterable[FrozenTrial]) -> float:
    """Seconds in which any trial ran, with short gaps between them: a run that was stopped meanwhile took less.

    The trial of a killed process is left out: its end is when another process noticed.
    """
    trials = [t for t in trials if not is_interrupted(t) or facts_of(t).by_user]
    spans = sorted(
        (t.datetime_start, t.datetime_complete or datetime.now()) for t in trials if t.datetime_start is not None
    )
    total, end = 0.0, None
    for start, stop in spans:
        if end is None or (start - end).total_seconds() > _GAP_S:
            total += (stop - start).total_seconds()
            end = stop
        elif stop > end:
            total += (stop - end).total_seconds()
            end = stop
    return total
