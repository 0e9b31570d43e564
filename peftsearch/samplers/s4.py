"""The S4 procedure: decide one dimension of the design after the other, each by the mean score of its choices.

Source: arXiv 2301.01821, sec. 4. A stage fixes what is decided, takes each choice of its dimension, completes the rest
at random, and keeps the choice with the best mean. The order is the space's: grouping, allocation, tunable groups,
methods of G1, G2, ... (and the learning rate, where the space has one).

What is ours, since the paper trains 100 models a choice and users train tens in all:

- All choices of a stage share their random completions and their training seeds (common random numbers), so that the
  means differ by the choice and not by the luck of the rest.
- `n_trials` is apportioned over the stages in proportion to the square root of their numbers of choices (at least two
  each, largest remainder). A stage with fewer trials than choices compares as many of them, drawn by the seed, once
  each; otherwise every choice gets the same number of repeats and what is left goes on to the next stage.
- Stages with nothing to decide (methods of a group that is not tuned) pass their trials on; choices that cannot fit the
  budget with any of the completions drawn are left out and recorded as such.
- A choice that wins with one repeat has no standard error; the record says n = 1.

Everything is decided from the stored trials and the seed: no state is kept between calls.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import floor, sqrt
from statistics import mean, stdev
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from peftsearch.errors import ConfigError
from peftsearch.samplers.context import REPLICATE, STAGE, SamplerContext, StagePlan, counted, derived_seed
from peftsearch.space import Choice, Dimension

_SLOT = "peftsearch:s4"
_DRAWS = 200
"""Completions drawn in search of one that fits."""
_TELLING_DRAWS = 10
"""Fitting completions drawn in search of one that tells all choices apart."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ChoiceRecord:
    """What a stage saw of one choice."""

    choice: Choice
    scores: tuple[float, ...]
    """Scores of its completed trials."""
    n_failed: int = 0
    """Trials of it that failed."""
    fits: bool = True
    """Whether any completion of it fits the budget."""
    drawn: bool = True
    """Whether the stage tried it; with few trials it tries only some."""

    @property
    def mean(self) -> float | None:
        """Mean score; None without a score."""
        return mean(self.scores) if self.scores else None

    @property
    def standard_error(self) -> float | None:
        """Standard error of the mean; None below two scores."""
        return stdev(self.scores) / sqrt(len(self.scores)) if len(self.scores) > 1 else None


@dataclass(frozen=True, kw_only=True, slots=True)
class StageRecord:
    """One stage: its choices and, once it is closed, its decision."""

    name: str
    choices: tuple[ChoiceRecord, ...]
    chosen: Choice | None = None
    """None while the stage is open."""
    why: str = "best mean"
    """`best mean`, or why there was nothing to compare."""

    def to_dict(self) -> dict[str, Any]:
        """Mean, standard error and n of every choice, as the study and `best.yaml` keep them."""
        choices = [
            {
                "choice": c.choice,
                "mean": c.mean,
                "standard_error": c.standard_error,
                "n": len(c.scores),
                "failed": c.n_failed,
                "fits": c.fits,
                "tried": c.drawn,
            }
            for c in self.choices
        ]
        return {"stage": self.name, "chosen": self.chosen, "why": self.why, "choices": choices}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Slot:
    """One trial that a stage asks for."""

    choice: Choice
    repeat: int
    params: dict[str, Any]


def make(context: SamplerContext) -> BaseSampler:
    """The S4 sampler; it has no settings beside the number of trials."""
    return S4Sampler(context)


class S4Sampler(BaseSampler):
    """The staged greedy procedure as an Optuna sampler.

    Args:
        context: The space, the number of trials, the seed and what fits the budget.

    Raises:
        ConfigError: Fewer trials than two a stage.
    """

    def __init__(self, context: SamplerContext) -> None:
        self._context = context
        self._dimensions = context.space.dimensions
        self._fitting_of: dict[tuple[tuple[str, Choice], ...], list[Choice]] = {}
        self._slots_of: dict[tuple[str, tuple[tuple[str, Choice], ...], int], list[_Slot]] = {}
        stages = sum(len(d.choices) > 1 for d in self._dimensions)
        if context.n_trials < 2 * stages:
            raise ConfigError(
                f"strategy s4 needs at least {2 * stages} trials for the {stages} stages of space "
                f"{context.space.name}, got {context.n_trials}; give more --trials or use --strategy random"
            )

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """All dimensions of the space."""
        return self._context.distributions

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The next open trial of the open stage; nothing once all stages are closed (`exhausted` says so before)."""
        earlier = [t for t in study.get_trials(deepcopy=False) if t.number != trial.number]
        _, open_slots, stage = self._replay(earlier)
        if not open_slots:
            return {}
        slot = open_slots[0]
        attributes: dict[str, Any] = {
            _SLOT: {"stage": stage, "choice": slot.choice, "repeat": slot.repeat},
            REPLICATE: slot.repeat,
            STAGE: stage,
        }
        for key, value in attributes.items():
            study._storage.set_trial_system_attr(trial._trial_id, key, value)
        return dict(slot.params)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Raise, since every parameter is sampled relatively."""
        raise ConfigError(
            f"the s4 sampler was asked for {param_name!r}, which the space does not have, or is exhausted"
        )

    def exhausted(self, trials: Sequence[FrozenTrial]) -> bool:
        """Whether all stages are closed."""
        _, open_slots, _ = self._replay(trials)
        return not open_slots

    def decisions(self, trials: Sequence[FrozenTrial]) -> tuple[StageRecord, ...]:
        """All stages so far with their means, standard errors and numbers; the last may be open."""
        return self._replay(trials)[0]

    def decided_trial(self, trials: Sequence[FrozenTrial]) -> FrozenTrial | None:
        """The best trial with the design that the closed stages decided on; None before the last stage is closed."""
        records, open_slots, _ = self._replay(trials)
        if open_slots or len(records) < len(self._dimensions):
            return None
        wanted = self._context.space.design({r.name: r.chosen for r in records})
        own = [t for t in counted(trials) if t.state == TrialState.COMPLETE and _SLOT in t.system_attrs]
        same = [t for t in own if self._context.space.design(t.params) == wanted]
        return max(same, key=lambda t: t.value or 0.0, default=None)

    def plan(self) -> tuple[StagePlan, ...]:
        """Stages, choices and trials as they stand before the first trial, with every group tuned."""
        live = [d for d in self._dimensions if len(d.choices) > 1]
        left, stages = self._context.n_trials, []
        for i, dimension in enumerate(live):
            share = apportion(left, [len(d.choices) for d in live[i:]])[0]
            compared, repeats = _compared(share, len(dimension.choices))
            stages.append(
                StagePlan(name=dimension.name, n_choices=len(dimension.choices), compared=compared, repeats=repeats)
            )
            left -= compared * repeats
        return tuple(stages)

    def _replay(self, trials: Sequence[FrozenTrial]) -> tuple[tuple[StageRecord, ...], list[_Slot], str]:
        """Walk through the stages with the stored trials; returns the records, the open slots and the open stage."""
        history = _by_slot(trials)
        decided: dict[str, Choice] = {}
        records: list[StageRecord] = []
        used = 0
        for i, dimension in enumerate(self._dimensions):
            reason = self._nothing_to_decide(dimension, decided)
            if reason is not None:
                decided[dimension.name] = dimension.choices[0]
                records.append(StageRecord(name=dimension.name, choices=(), chosen=dimension.choices[0], why=reason))
                continue
            fitting = self._fitting(dimension, decided)
            if len(fitting) < 2:
                decided[dimension.name] = (fitting or dimension.choices)[0]
                records.append(_unopposed(dimension, fitting))
                continue
            rest = [d for d in self._dimensions[i:] if self._nothing_to_decide(d, decided) is None]
            share = apportion(self._context.n_trials - used, [len(d.choices) for d in rest])[0]
            slots = self._slots(dimension, decided, share)
            seen = {(s.choice, s.repeat): history.get((dimension.name, s.choice, s.repeat)) for s in slots}
            record = _record(dimension, slots, fitting, [t for t in seen.values() if t is not None])
            open_slots = [s for s in slots if seen[(s.choice, s.repeat)] is None]
            unfinished = any(t is not None and t.state == TrialState.RUNNING for t in seen.values())
            if open_slots or unfinished:
                return (*records, record), open_slots, dimension.name
            used += len(slots)
            decided[dimension.name] = _best(record)
            why = "best mean" if any(c.scores for c in record.choices) else "all trials failed"
            records.append(replace(record, chosen=decided[dimension.name], why=why))
        return tuple(records), [], ""

    def _nothing_to_decide(self, dimension: Dimension, decided: dict[str, Choice]) -> str | None:
        if len(dimension.choices) == 1:
            return "the only choice"
        group = dimension.name.removeprefix("methods.")
        tuned = decided.get("tunable")
        if dimension.name.startswith("methods.") and tuned is not None and group not in str(tuned).split("+"):
            return "the group is not tuned"
        return None

    def _slots(self, dimension: Dimension, decided: dict[str, Choice], share: int) -> list[_Slot]:
        """The trials of a stage, repeat by repeat; the same for the same decisions."""
        key = (dimension.name, tuple(decided.items()), share)
        if key not in self._slots_of:
            fitting = self._fitting(dimension, decided)
            compared, repeats = _compared(share, len(fitting))
            drawn = random.Random(derived_seed(self._context.seed, dimension.name, "draw")).sample(fitting, compared)
            chosen = [c for c in fitting if c in drawn]
            slots: list[_Slot] = []
            for repeat in range(repeats):
                shared = self._completion(dimension, chosen, decided, "shared", repeat)
                for choice in chosen:
                    rest = shared or self._completion(dimension, [choice], decided, "own", repeat)
                    rest = rest or self._completion(dimension, [choice], decided, "fits", 0)
                    slots.append(_Slot(choice=choice, repeat=repeat, params={**(rest or {}), dimension.name: choice}))
            self._slots_of[key] = slots
        return self._slots_of[key]

    def _fitting(self, dimension: Dimension, decided: dict[str, Choice]) -> list[Choice]:
        """The choices that fit the budget with at least one of the completions drawn."""
        key = (*decided.items(), ("", dimension.name))
        if key not in self._fitting_of:
            self._fitting_of[key] = [
                c for c in dimension.choices if self._completion(dimension, [c], decided, "fits", 0) is not None
            ]
        return self._fitting_of[key]

    def _completion(
        self, dimension: Dimension, choices: list[Choice], decided: dict[str, Choice], purpose: str, repeat: int
    ) -> dict[str, Any] | None:
        """Random choices for all that is not decided, such that every one of `choices` fits; None when none is found.

        Of the first few that fit, the one under which most of the choices become different architectures: an
        allocation, say, means nothing when a single group is tuned.
        """
        rng = random.Random(derived_seed(self._context.seed, dimension.name, purpose, repeat))
        free = [d for d in self._dimensions if d.name not in decided and d.name != dimension.name]
        best: dict[str, Any] | None = None
        most_different = n_found = 0
        for _ in range(_DRAWS if free else 1):
            params = {**decided, **{d.name: rng.choice(d.choices) for d in free}}
            designs = [self._context.space.design({**params, dimension.name: choice}) for choice in choices]
            if not all(map(self._context.feasible, designs)):
                continue
            n_found += 1
            n_different = len(set(map(self._context.identity, designs))) if len(designs) > 1 else 1
            if n_different > most_different:
                best, most_different = params, n_different
            if most_different == len(choices) or n_found == _TELLING_DRAWS:
                break
        return best


def apportion(n_trials: int, n_choices: Sequence[int]) -> list[int]:
    """Divide trials over stages in proportion to the square root of their choices, by largest remainder.

    Args:
        n_trials: Trials to divide.
        n_choices: Choices of each stage.

    Returns:
        Trials of each stage; they sum to `n_trials`, and each stage has at least two where that is possible.
    """
    floor_each = min(2, n_trials // len(n_choices))
    free = n_trials - floor_each * len(n_choices)
    weights = [sqrt(n) for n in n_choices]
    exact = [free * w / sum(weights) for w in weights]
    shares = [floor(x) for x in exact]
    by_remainder = sorted(range(len(exact)), key=lambda i: (shares[i] - exact[i], i))
    for i in by_remainder[: free - sum(shares)]:
        shares[i] += 1
    return [floor_each + share for share in shares]


def _compared(n_trials: int, n_choices: int) -> tuple[int, int]:
    """Choices that a stage compares, and the repeats of each."""
    return (n_choices, n_trials // n_choices) if n_trials >= n_choices else (n_trials, 1)


def _by_slot(trials: Sequence[FrozenTrial]) -> dict[tuple[str, Choice, int], FrozenTrial]:
    slots = {}
    for trial in counted(trials):
        slot = trial.system_attrs.get(_SLOT)
        if slot is not None:
            slots[(slot["stage"], slot["choice"], slot["repeat"])] = trial
    return slots


def _record(dimension: Dimension, slots: list[_Slot], fitting: list[Choice], trials: list[FrozenTrial]) -> StageRecord:
    tried = {s.choice for s in slots}
    records = []
    for choice in dimension.choices:
        own = [t for t in trials if t.system_attrs[_SLOT]["choice"] == choice]
        scores = tuple(float(t.value) for t in own if t.state == TrialState.COMPLETE and t.value is not None)
        failed = sum(t.state in (TrialState.FAIL, TrialState.PRUNED) for t in own)
        records.append(
            ChoiceRecord(choice=choice, scores=scores, n_failed=failed, fits=choice in fitting, drawn=choice in tried)
        )
    return StageRecord(name=dimension.name, choices=tuple(records))


def _unopposed(dimension: Dimension, fitting: list[Choice]) -> StageRecord:
    """A stage without a comparison, since at most one of its choices fits the budget."""
    choices = tuple(ChoiceRecord(choice=c, scores=(), fits=c in fitting, drawn=False) for c in dimension.choices)
    why = "the only choice that fits" if fitting else "no choice fits"
    return StageRecord(name=dimension.name, choices=choices, chosen=(fitting or dimension.choices)[0], why=why)


def _best(record: StageRecord) -> Choice:
    """The choice with the best mean among those with the fewest failed trials; ties go to the one named first."""
    drawn = [c for c in record.choices if c.drawn]
    scored = [c for c in drawn if c.mean is not None]
    if not scored:
        return drawn[0].choice
    fewest = min(c.n_failed for c in scored)
    return max((c for c in scored if c.n_failed == fewest), key=lambda c: c.mean or 0.0).choice
