"""The S4 procedure: decide the dimensions of a design one after the other, each by the mean scores of its choices.

Source: arXiv 2301.01821, sec. 4. A stage keeps the earlier decisions, takes each choice of its dimension, completes the
rest at random, and picks the choice with the best mean. The order is the space's: grouping, allocation, tunable groups,
methods of G1, G2, ... (and the learning rate, where the space has one).

Differences from the paper, which trains 100 models per choice, while users train tens in all:

- All choices of a stage share their random completions and their training seeds (common random numbers), so that the
  means differ by the choice and not by luck.
- `n_trials` is apportioned over the stages in proportion to the square root of their numbers of choices (at least two
  each, largest remainder). A stage with fewer trials than choices compares only that many choices, drawn by the seed,
  once each; otherwise every choice gets the same number of repeats, and surplus trials pass to the next stage.
- Stages with nothing to decide (methods of a group that is not tuned) pass their trials on; choices that do not fit the
  budget with any completion drawn are left out and recorded as such.
- A choice that wins with one repeat has no standard error; the record says n = 1.
- A stage closes when all of its trials have ended. Workers that would otherwise wait get further repeats of its
  choices, those with the fewest trials first: never more extra repeats in a stage than it has running trials, and never
  so many that a later stage has fewer than two. They count in the means like any other trial. A single worker never
  gets one.

Everything is decided from the stored trials and the seed: calls share only caches, and the last answer of `waiting`.
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
"""Most completions to draw until one fits."""
_FEWEST = 2
"""Fewest trials of a stage."""
_TELLING_DRAWS = 10
"""Most fitting completions to draw until one makes all choices different."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Slot:
    """One trial that a stage asks for."""

    choice: Choice
    repeat: int
    params: dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Progress:
    """The state of the procedure after the stored trials."""

    records: tuple[StageRecord, ...]
    """The stages so far; the last may be open."""
    stage: str = ""
    """The open stage; empty when all are closed."""
    slots: tuple[_Slot, ...] = ()
    """Trials that the open stage asks for; when empty, the stage waits for its running trials."""


def make(context: SamplerContext) -> BaseSampler:
    """The S4 sampler, which has no settings of its own."""
    return S4Sampler(context)


class S4Sampler(BaseSampler):
    """The staged greedy procedure as an Optuna sampler.

    Args:
        context: The space, the number of trials, the seed and the check whether a design fits the budget.

    Raises:
        ConfigError: There are fewer than two trials per stage.
    """

    def __init__(self, context: SamplerContext) -> None:
        self._context = context
        self._dimensions = context.space.dimensions
        self._fitting_of: dict[tuple[tuple[str, Choice], ...], list[Choice]] = {}
        self._slots_of: dict[tuple[str, tuple[tuple[str, Choice], ...], int], list[_Slot]] = {}
        self._looked: tuple[int, _Progress] | None = None
        """Number of trials at the last call of `waiting`, and the progress then."""
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
        """The next open trial of the open stage; nothing when all stages are closed or the stage waits.

        Ask `exhausted` and `waiting` first.
        """
        others = [t for t in study.get_trials(deepcopy=False) if t.number != trial.number]
        progress = self._replay(others)
        if not progress.slots and self._looked is not None and self._looked[0] == len(others):
            # Another worker's trial ended since `waiting` promised a proposal: keep the promise with that answer.
            progress = self._looked[1]
        if not progress.slots:
            return {}
        slot = progress.slots[0]
        # Stored with the trial, since every later call, in any process, finds the slots that are taken there.
        write_slot(study, trial, Slot(stage=progress.stage, choice=slot.choice, repeat=slot.repeat))
        return dict(slot.params)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Raise, since every parameter is sampled relatively."""
        raise ConfigError(
            f"the s4 sampler cannot propose {param_name!r}: the space does not have it, or the sampler waits or is done"
        )

    def exhausted(self, trials: Sequence[FrozenTrial]) -> bool:
        """Whether all stages are closed, so that nothing will be proposed again."""
        return not self._replay(trials).stage

    def waiting(self, trials: Sequence[FrozenTrial]) -> bool:
        """Whether nothing can be proposed until a running trial ends.

        If this returns False, the next `sample_relative` proposes a trial, even if a trial in another process ends in
        between: that may close the stage and leave nothing else to propose, but the trial still counts in its stage.
        """
        progress = self._replay(trials)
        self._looked = len(trials), progress
        return bool(progress.stage) and not progress.slots

    def decisions(self, trials: Sequence[FrozenTrial]) -> tuple[StageRecord, ...]:
        """All stages so far, with the mean, standard error and n of each choice; the last may be open."""
        return self._replay(trials).records

    def decided_trial(self, trials: Sequence[FrozenTrial]) -> FrozenTrial | None:
        """The best trial of the design that the stages decided on; None before the last stage is closed."""
        progress = self._replay(trials)
        if progress.stage:
            return None
        wanted = self._context.space.design({r.name: r.chosen for r in progress.records})
        own = [t for t in counted(trials) if t.state == TrialState.COMPLETE and slot_of(t) is not None]
        same = [t for t in own if self._context.space.design(t.params) == wanted]
        return max(same, key=lambda t: t.value or 0.0, default=None)

    def plan(self) -> tuple[StagePlan, ...]:
        """Stages, choices and trials as planned before the first trial, assuming that every group is tuned."""
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
        """Go through the stages with the stored trials, up to the first that is open."""
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
            # Apportioned again at each stage, from the trials that are really left: earlier stages use more or fewer
            # than their share (whole repeats, extra repeats), and decisions drop later stages.
            rest = [d for d in self._dimensions[i:] if self._nothing_to_decide(d, decided) is None]
            share = apportion(self._context.n_trials - used, [len(d.choices) for d in rest])[0]
            slots = self._slots(dimension, decided, share)
            seen = {key[1:]: trial for key, trial in history.items() if key[0] == dimension.name}
            seen_of = record(dimension, {s.choice for s in slots}, fitting, list(seen.values()))
            open_slots = [s for s in slots if (s.choice, s.repeat) not in seen]
            n_running = sum(t.state == TrialState.RUNNING for t in seen.values())
            if not open_slots and n_running:
                # An idle worker may add a repeat. Both conditions keep it from spending trials that later stages need.
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
        """One more repeat of the choice with the fewest trials, with the completion that all choices share in it."""
        chosen = list(dict.fromkeys(s.choice for s in slots))
        choice = min(chosen, key=lambda c: sum(own == c for own, _ in seen))
        repeat = next(r for r in count() if (choice, r) not in seen)  # an interrupted trial leaves a gap
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
        """The trials of a stage, repeat by repeat; deterministic given the decisions."""
        # Cached, since every call replays the whole procedure and drawing completions is its slow part.
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
        """One trial of each choice, with a common completion where one fits all of them."""
        shared = self._completion(dimension, chosen, decided, "shared", repeat)
        slots = []
        for choice in chosen:
            rest = shared or self._completion(dimension, [choice], decided, "own", repeat)
            # The last resort always exists: `_fitting` kept the choice because this very draw fitted.
            rest = rest or self._completion(dimension, [choice], decided, "fits", 0)
            slots.append(_Slot(choice=choice, repeat=repeat, params={**(rest or {}), dimension.name: choice}))
        return slots

    def _fitting(self, dimension: Dimension, decided: dict[str, Choice]) -> list[Choice]:
        """The choices that fit the budget with at least one completion drawn."""
        key = (*decided.items(), ("", dimension.name))
        if key not in self._fitting_of:
            self._fitting_of[key] = [
                c for c in dimension.choices if self._completion(dimension, [c], decided, "fits", 0) is not None
            ]
        return self._fitting_of[key]

    def _completion(
        self, dimension: Dimension, choices: list[Choice], decided: dict[str, Choice], purpose: str, repeat: int
    ) -> dict[str, Any] | None:
        """Random choices for all open dimensions, with which every one of `choices` fits; None if none is found.

        Of the first few that fit, take the one with which most of the choices become different architectures: the
        allocation, for example, has no effect when a single group is tuned.
        """
        # The choice is not part of the seed, so that a choice on its own draws the same completions as any other.
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
        n_trials: Number of trials to divide.
        n_choices: Number of choices of each stage.

    Returns:
        Number of trials of each stage; sums to `n_trials`, with at least two for each stage where possible.
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
    """Number of choices that a stage compares, and of repeats of each."""
    return (n_choices, n_trials // n_choices) if n_trials >= n_choices else (n_trials, 1)


def _by_slot(trials: Sequence[FrozenTrial]) -> dict[tuple[str, Choice, int], FrozenTrial]:
    slots = {}
    for trial in counted(trials):
        slot = slot_of(trial)
        if slot is not None:
            slots[slot.stage, slot.choice, slot.repeat] = trial
    return slots
