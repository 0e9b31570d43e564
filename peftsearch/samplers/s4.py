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
- A stage closes when all of its trials have ended. Workers that would wait for it get further repeats of its choices,
  those with the fewest trials first: never more of them in a stage than trials of it are running, and never so many
  that a later stage has fewer than two. They count in the means like any other. One worker alone never gets one.

Everything is decided from the stored trials and the seed: no state is kept between calls.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import count
from math import floor, sqrt
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from peftsearch.design.space import Choice, Dimension
from peftsearch.errors import ConfigError
from peftsearch.samplers.context import SamplerContext, StagePlan
from peftsearch.samplers.stages import StageRecord, best, record, unopposed
from peftsearch.study.trials import Slot, counted, derived_seed, slot_of, write_slot

_DRAWS = 200
"""Completions drawn in search of one that fits."""
_FEWEST = 2
"""Trials that every stage has at least."""
_TELLING_DRAWS = 10
"""Fitting completions drawn in search of one that tells all choices apart."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Slot:
    """One trial that a stage asks for."""

    choice: Choice
    repeat: int
    params: dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Progress:
    """How far the stored trials have come."""

    records: tuple[StageRecord, ...]
    """The stages so far; the last may be open."""
    stage: str = ""
    """The open stage; empty when all are closed."""
    slots: tuple[_Slot, ...] = ()
    """Trials that the open stage asks for; without any it waits for those that run."""


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
        self._looked: tuple[int, _Progress] | None = None
        """How many trials there were when `waiting` was asked last, and how far they had come."""
        stages = sum(len(d.choices) > 1 for d in self._dimensions)
        if context.n_trials < _FEWEST * stages:
            raise ConfigError(
                f"strategy s4 needs at least {_FEWEST * stages} trials for the {stages} stages of space "
                f"{context.space.name}, got {context.n_trials}; give more --trials or use --strategy random"
            )

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """All dimensions of the space."""
        return self._context.distributions

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The next open trial of the open stage; nothing when it is over or waits (`exhausted`, `waiting` say so)."""
        others = [t for t in study.get_trials(deepcopy=False) if t.number != trial.number]
        progress = self._replay(others)
        if not progress.slots and self._looked is not None and self._looked[0] == len(others):
            progress = self._looked[1]  # a trial has ended since `waiting` said that there is something to propose
        if not progress.slots:
            return {}
        slot = progress.slots[0]
        write_slot(study, trial, Slot(stage=progress.stage, choice=slot.choice, repeat=slot.repeat))
        return dict(slot.params)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Raise, since every parameter is sampled relatively."""
        raise ConfigError(
            f"the s4 sampler was asked for {param_name!r}, which the space does not have, or while it waits or is over"
        )

    def exhausted(self, trials: Sequence[FrozenTrial]) -> bool:
        """Whether all stages are closed: nothing will ever be proposed again."""
        return not self._replay(trials).stage

    def waiting(self, trials: Sequence[FrozenTrial]) -> bool:
        """Whether nothing can be proposed until a running trial ends.

        What can be is proposed next even where one ends in between, in another process: that a stage is over by then
        takes nothing from it, but nothing would be left to propose.
        """
        progress = self._replay(trials)
        self._looked = len(trials), progress
        return bool(progress.stage) and not progress.slots

    def decisions(self, trials: Sequence[FrozenTrial]) -> tuple[StageRecord, ...]:
        """All stages so far with their means, standard errors and numbers; the last may be open."""
        return self._replay(trials).records

    def decided_trial(self, trials: Sequence[FrozenTrial]) -> FrozenTrial | None:
        """The best trial with the design that the closed stages decided on; None before the last stage is closed."""
        progress = self._replay(trials)
        if progress.stage:
            return None
        wanted = self._context.space.design({r.name: r.chosen for r in progress.records})
        own = [t for t in counted(trials) if t.state == TrialState.COMPLETE and slot_of(t) is not None]
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

    def _replay(self, trials: Sequence[FrozenTrial]) -> _Progress:
        """Walk through the stages with the stored trials."""
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
                records.append(unopposed(dimension, fitting))
                continue
            rest = [d for d in self._dimensions[i:] if self._nothing_to_decide(d, decided) is None]
            share = apportion(self._context.n_trials - used, [len(d.choices) for d in rest])[0]
            slots = self._slots(dimension, decided, share)
            seen = {key[1:]: trial for key, trial in history.items() if key[0] == dimension.name}
            seen_of = record(dimension, {s.choice for s in slots}, fitting, list(seen.values()))
            open_slots = [s for s in slots if (s.choice, s.repeat) not in seen]
            n_running = sum(t.state == TrialState.RUNNING for t in seen.values())
            if not open_slots and n_running:
                free = self._context.n_trials - used - len(seen) - _FEWEST * (len(rest) - 1)
                if len(seen) - len(slots) < n_running and free > 0:
                    open_slots = [self._further(dimension, decided, slots, seen)]
            if open_slots or n_running:
                return _Progress(records=(*records, seen_of), stage=dimension.name, slots=tuple(open_slots))
            used += len(seen)
            decided[dimension.name] = best(seen_of)
            why = "best mean" if any(c.scores for c in seen_of.choices) else "all trials failed"
            records.append(replace(seen_of, chosen=decided[dimension.name], why=why))
        return _Progress(records=tuple(records))

    def _further(
        self,
        dimension: Dimension,
        decided: dict[str, Choice],
        slots: list[_Slot],
        seen: dict[tuple[Choice, int], FrozenTrial],
    ) -> _Slot:
        """One more repeat of the choice that has the fewest, under the completion that the choices share in it."""
        chosen = list(dict.fromkeys(s.choice for s in slots))
        choice = min(chosen, key=lambda c: sum(own == c for own, _ in seen))
        repeat = next(r for r in count() if (choice, r) not in seen)  # an interrupted one leaves a gap
        return self._repeat(dimension, decided, chosen, repeat)[chosen.index(choice)]

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
            self._slots_of[key] = [
                slot for repeat in range(repeats) for slot in self._repeat(dimension, decided, chosen, repeat)
            ]
        return self._slots_of[key]

    def _repeat(
        self, dimension: Dimension, decided: dict[str, Choice], chosen: list[Choice], repeat: int
    ) -> list[_Slot]:
        """One trial of each choice; they share their completion where one fits all of them."""
        shared = self._completion(dimension, chosen, decided, "shared", repeat)
        slots = []
        for choice in chosen:
            rest = shared or self._completion(dimension, [choice], decided, "own", repeat)
            rest = rest or self._completion(dimension, [choice], decided, "fits", 0)
            slots.append(_Slot(choice=choice, repeat=repeat, params={**(rest or {}), dimension.name: choice}))
        return slots

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
    floor_each = min(_FEWEST, n_trials // len(n_choices))
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
        slot = slot_of(trial)
        if slot is not None:
            slots[slot.stage, slot.choice, slot.repeat] = trial
    return slots
