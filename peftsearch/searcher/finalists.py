"""Choose the designs to confirm: the best baselines, the strategy's decision, and the best of the search."""

from __future__ import annotations

from collections.abc import Callable
from statistics import mean

import optuna
from optuna.trial import FrozenTrial, TrialState

from peftsearch.design.architecture import Architecture
from peftsearch.design.design import Design
from peftsearch.design.text import design_line
from peftsearch.searcher.prepare import Setup
from peftsearch.study.confirmed import Confirmed
from peftsearch.study.trials import Kind, TrialRecord, facts_of, is_baseline, not_interrupted, score_of

_FRONT_FACTOR = 3
"""Designs of a front to confirm for each design that a search for the score alone would confirm."""


def choose_finalists(study: optuna.Study, setup: Setup, fit: Callable[[Design], Architecture]) -> list[Confirmed]:
    """Choose the best baselines, the design that the strategy decided on, and the best of the search.

    A search for several objectives also confirms part of its front, evenly spread from the best score to the worst.
    Designs that were trained several times rank by their mean; designs that violate a constraint are left out.

    Args:
        study: The finished search.
        setup: The settings of the study.
        fit: Function that sizes a design.
    """
    counting = not_interrupted(study)
    trials = [t for t in counting if t.state == TrialState.COMPLETE and not facts_of(t).exceeds_limits]
    keys = {t.number: _design_of(t).key for t in trials}
    scores: dict[str, list[float]] = {}
    for t in trials:
        scores.setdefault(keys[t.number], []).append(score_of(t))
    ranked = sorted(trials, key=lambda t: (-mean(scores[keys[t.number]]), t.number))
    confirm = setup.strategy.confirm
    if len(setup.objectives) > 1:
        front = {t.number for t in study.best_trials}
        ranked = [t for t in ranked if t.number in front] + [t for t in ranked if t.number not in front]
    found = [t for t in ranked if not is_baseline(t)]
    decided = getattr(setup.sampler, "decided_trial", None)
    trial = None if decided is None else decided(counting)  # a stage's failed trials belong to it
    if trial is not None and not facts_of(trial).exceeds_limits:
        found.insert(0, trial)
    baselines = [t for t in ranked if is_baseline(t)]
    chosen: list[Confirmed] = []
    wanted = [(baselines, confirm.baselines), (found, confirm.best)]
    if len(setup.objectives) > 1:
        wanted.insert(0, (_spread([t for t in ranked if t.number in front], n_of_front(setup)), n_of_front(setup)))
    for group, n_wanted in wanted:
        n_before = len(chosen)
        for finalist in (_finalist(t, fit) for t in group):
            if _trained(finalist) not in {_trained(f) for f in chosen}:
                chosen.append(finalist)
            if len(chosen) - n_before == n_wanted:
                break
    return chosen


def n_of_front(setup: Setup) -> int:
    """Number of designs of the front to confirm; 0 in a search for a single objective."""
    return _FRONT_FACTOR * setup.strategy.confirm.best if len(setup.objectives) > 1 else 0


def _spread(front: list[FrozenTrial], n: int) -> list[FrozenTrial]:
    """At most n designs of a front, evenly spaced from the best score to the worst, including both."""
    if len(front) <= n:
        return front
    return [front[round(i * (len(front) - 1) / max(1, n - 1))] for i in range(n)]


def _finalist(trial: FrozenTrial, fit: Callable[[Design], Architecture]) -> Confirmed:
    facts, design = facts_of(trial), _design_of(trial)
    architecture = fit(design)
    return Confirmed(
        name=str(facts.name),
        baseline=is_baseline(trial),
        family=facts.family or "",
        design=design,
        architecture=architecture,
        detail=design_line(design),
        n_params=architecture.n_params,
        share=facts.share,
        search_score=score_of(trial),
        n_changed=TrialRecord.of(trial, Kind.SEARCH).n_changed,
    )


def _design_of(trial: FrozenTrial) -> Design:
    design = facts_of(trial).design
    assert design is not None, "a trial that was begun has its design"
    return Design.from_dict(design)


def _trained(finalist: Confirmed) -> tuple[Architecture | None, float | None]:
    """The architecture and the learning rate; designs that agree in both are the same."""
    return finalist.architecture, None if finalist.design is None else finalist.design.learning_rate
