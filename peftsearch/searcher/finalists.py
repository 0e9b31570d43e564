"""Choose the designs to confirm: the best baselines, the strategy's decision, and the best of the search."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from statistics import mean

import optuna
from optuna.trial import FrozenTrial, TrialState

from peftsearch.design.architecture import Architecture
from peftsearch.design.design import Design
from peftsearch.design.shares import n_changed
from peftsearch.design.text import design_line
from peftsearch.searcher.headroom import CHEAP, headroom
from peftsearch.searcher.prepare import Setup
from peftsearch.study.confirmed import Confirmed
from peftsearch.study.trials import (
    Kind,
    arm_of,
    facts_of,
    is_reference,
    not_interrupted,
    of_baseline,
    rung_of,
    value_of,
)

_COSTS = {
    "training FLOPs": "train_flops",
    "training memory": "peak_memory_bytes",
    "inference FLOPs": "inference_flops",
}
"""Measures by which a design may be cheaper; those that a loaded machine does not change."""
_FRONT_FACTOR = 3
"""Designs of a front to confirm for each design that a search for the score alone would confirm."""


def choose_finalists(
    study: optuna.Study, setup: Setup, fit: Callable[[Design], Architecture], tuned: bool = True
) -> list[Confirmed]:
    """Choose the best baselines, the design that the strategy decided on, the best of the search, and cheap ones.

    A search for several objectives also confirms part of its front, evenly spread from the best value to the worst.
    Designs that were trained several times rank by the mean of their values, and those that were chosen for further
    seeds before the others; designs that violate a constraint are left out. The cheap one is the best of those with at
    most `CHEAP` of the parameters of the best baseline, and the head alone joins it. Where the budget does not limit
    the score, the best of those with at most half of that takes the place of a design of the search.

    Args:
        study: The finished search.
        setup: The settings of the study.
        fit: Function that sizes a design.
        tuned: Whether the learning rates were tried: every design takes its best one, and baselines rank by it.
            Otherwise the best third of the baselines is chosen, all of which are to be tried at other rates.
    """
    counting = not_interrupted(study)
    complete = [t for t in counting if t.state == TrialState.COMPLETE and not facts_of(t).exceeds_limits]
    ranked = _ranked([t for t in complete if facts_of(t).kind != Kind.RATE])
    confirm = setup.strategy.confirm
    if len(setup.objectives) > 1:
        front = {t.number for t in study.best_trials}
        ranked = [t for t in ranked if t.number in front] + [t for t in ranked if t.number not in front]
    found = [t for t in ranked if not of_baseline(t)]
    decided = getattr(setup.sampler, "decided_trial", None)
    trial = None if decided is None else decided(counting)  # a stage's failed trials belong to it
    if trial is not None and not facts_of(trial).exceeds_limits:
        found.insert(0, trial)
    heads = [t for t in ranked if of_baseline(t) and not facts_of(t).n_params]
    baselines = [t for t in ranked if of_baseline(t) and facts_of(t).n_params] or heads
    room = headroom(counting, (), setup) if baselines and len(setup.objectives) == 1 else None
    is_free = room is not None and not room.is_limited and confirm.cheap > 0
    n_found = max(1, confirm.best - 1) if is_free else confirm.best
    wanted = [(_rated(baselines, complete, setup, tuned=tuned), confirm.baselines), (found, n_found)]
    if not tuned:
        wanted[0] = wanted[0][0], len(wanted[0][0])
    if len(setup.objectives) > 1:
        wanted.insert(0, (_spread([t for t in ranked if t.number in front], n_of_front(setup)), n_of_front(setup)))
    elif baselines and confirm.cheap:
        for share in (CHEAP, CHEAP / 2) if is_free else (CHEAP,):
            most = share * (facts_of(baselines[0]).n_params or 0)
            wanted.append(([t for t in ranked if 0 < (facts_of(t).n_params or 0) <= most], confirm.cheap))
        wanted.append((heads, 1))
    chosen: list[FrozenTrial] = []
    taken: list[tuple[Architecture, float | None]] = []
    for group, n_wanted in wanted:
        n_before = len(chosen)
        for candidate in group if n_wanted else ():
            design = _design_of(candidate)
            trained = fit(design), design.learning_rate
            if trained not in taken:
                taken.append(trained)
                chosen.append(candidate)
            if len(chosen) - n_before == n_wanted:
                break
    costs = {facts_of(t).name: facts_of(t).measures or {} for t in complete if facts_of(t).measures}
    return [
        _finalist(_best_rate(t, complete) if tuned else t, setup, fit, costs.get(facts_of(t).name, {})) for t in chosen
    ]


def also_confirmed(
    confirm: optuna.Study, chosen: Sequence[Confirmed], setup: Setup, fit: Callable[[Design], Architecture]
) -> list[Confirmed]:
    """Designs that were confirmed before an extension of the search chose others: they stay candidates.

    Args:
        confirm: The study of the confirmation.
        chosen: The designs that are chosen now.
        setup: The settings of the study.
        fit: Function that sizes a design.
    """
    names = {f.name for f in chosen}
    earlier: dict[str, FrozenTrial] = {}
    for t in not_interrupted(confirm):
        name = str(facts_of(t).name)
        if not is_reference(t) and name not in names and t.state == TrialState.COMPLETE:
            earlier.setdefault(name, t)
    return [
        # Of a confirmation only a baseline has a family.
        replace(_finalist(t, setup, fit, {}), baseline=facts_of(t).family is not None)
        for t in earlier.values()
    ]


def _ranked(trials: list[FrozenTrial]) -> list[FrozenTrial]:
    """The last trial of every training: those of higher rungs first, then those with several seeds, then by value."""
    last = _last_rungs(trials)
    keys = {t.number: _design_of(t).key for t in last}
    values: dict[str, list[float]] = {}
    for t in last:
        values.setdefault(keys[t.number], []).append(value_of(t))
    repeated = {keys[t.number] for t in last if facts_of(t).kind == Kind.REPEAT}

    def rank(t: FrozenTrial) -> tuple[float, ...]:
        key = keys[t.number]
        return -rung_of(t), key not in repeated, -mean(values[key]), t.number

    return sorted(last, key=rank)


def _rated(
    baselines: list[FrozenTrial], complete: list[FrozenTrial], setup: Setup, *, tuned: bool
) -> list[FrozenTrial]:
    """The baselines, best first; of strategies that try rates the best third, and after that by their best rate."""
    if not setup.strategy.search.rates:
        return baselines
    names = list(dict.fromkeys(facts_of(t).name for t in baselines))
    kept = names[: setup.strategy.search.n_kept(len(names), setup.strategy.confirm.baselines)]
    rated = [t for t in baselines if facts_of(t).name in kept]
    return sorted(rated, key=lambda t: -_tuned_value(t, baselines, complete)) if tuned else rated


def _tuned_value(trial: FrozenTrial, ranked: list[FrozenTrial], complete: list[FrozenTrial]) -> float:
    """Mean value of a design over its seeds at its own rate, plus what its best rate gains with the same seed."""
    own = mean(value_of(t) for t in ranked if facts_of(t).name == facts_of(trial).name)
    first = min((t for t in ranked if facts_of(t).name == facts_of(trial).name), key=lambda t: facts_of(t).seed or 0)
    best = _best_rate(first, complete)
    return own + (max(0.0, value_of(best) - value_of(first)) if rung_of(best) == rung_of(first) else 0.0)


def _last_rungs(trials: list[FrozenTrial]) -> list[FrozenTrial]:
    """Of every training the trial of its last rung."""
    last = {facts_of(t).name: rung_of(t) for t in sorted(trials, key=rung_of)}
    return [t for t in trials if rung_of(t) == last[facts_of(t).name]]


def _best_rate(trial: FrozenTrial, trials: list[FrozenTrial]) -> FrozenTrial:
    """The best of a design's trainings at its own and other learning rates, among those of the highest rung."""
    own = [t for t in trials if facts_of(t).arm == facts_of(trial).name]
    return max([trial, *own], key=lambda t: (rung_of(t), value_of(t), -t.number))


def n_of_front(setup: Setup) -> int:
    """Number of designs of the front to confirm; 0 in a search for a single objective."""
    return _FRONT_FACTOR * setup.strategy.confirm.best if len(setup.objectives) > 1 else 0


def _spread(front: list[FrozenTrial], n: int) -> list[FrozenTrial]:
    """At most n designs of a front, evenly spaced from the best score to the worst, including both."""
    if len(front) <= n:
        return front
    return [front[round(i * (len(front) - 1) / max(1, n - 1))] for i in range(n)]


def _finalist(
    trial: FrozenTrial, setup: Setup, fit: Callable[[Design], Architecture], measures: Mapping[str, float]
) -> Confirmed:
    facts, design = facts_of(trial), _design_of(trial)
    architecture = fit(design)
    return Confirmed(
        name=arm_of(trial),
        baseline=of_baseline(trial),
        family=facts.family or "",
        design=design,
        architecture=architecture,
        detail=design_line(design),
        n_params=architecture.n_params,
        share=facts.share,
        search_score=facts.score,
        search_loss=facts.loss,
        search_seed=facts.seed,
        n_changed=n_changed(architecture, setup.backbone),
        costs={name: measures[key] for name, key in _COSTS.items() if key in measures},
    )


def _design_of(trial: FrozenTrial) -> Design:
    design = facts_of(trial).design
    assert design is not None, "a trial that was begun has its design"
    return Design.from_dict(design)
