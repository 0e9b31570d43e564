"""Which designs are confirmed: the best baselines, the strategy's decision, and the best of the search."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import mean

import optuna
from optuna.trial import FrozenTrial, TrialState

from peftsearch.design.architecture import Architecture
from peftsearch.design.design import Design
from peftsearch.searcher.prepare import Setup
from peftsearch.study.trials import INTERRUPTED, KIND, score_of

_FRONT_FACTOR = 3
"""Designs of a front that are confirmed for each one that a search for the score alone would confirm."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Finalist:
    """A design that is confirmed."""

    name: str
    """Baseline's name, or `trial 17` by its place in the search; interrupted trials do not count."""
    baseline: bool
    family: str
    """A baseline's name without rate and share of the budget; empty for designs of the search."""
    design: Design
    architecture: Architecture


def choose_finalists(study: optuna.Study, setup: Setup, fit: Callable[[Design], Architecture]) -> list[Finalist]:
    """The best baselines, the design that the strategy decided on, and the best of the search, from the history.

    A search for several objectives confirms a part of its front as well, evenly spread from best score to worst.
    Designs that were trained several times rank by their mean; those that violate a constraint are left out.

    Args:
        study: The search, over.
        setup: Its settings.
        fit: Sizes a design.
    """
    counting = not_interrupted(study)
    trials = [t for t in counting if t.state == TrialState.COMPLETE and not t.user_attrs.get("violations")]
    scores: dict[str, list[float]] = {}
    for t in trials:
        scores.setdefault(_design_key(t), []).append(score_of(t))
    ranked = sorted(trials, key=lambda t: (-mean(scores[_design_key(t)]), t.number))
    confirm = setup.strategy.confirm
    if len(setup.objectives) > 1:
        front = {t.number for t in study.best_trials}
        ranked = [t for t in ranked if t.number in front] + [t for t in ranked if t.number not in front]
    found = [t for t in ranked if t.user_attrs.get(KIND) != "baseline"]
    decided = getattr(setup.sampler, "decided_trial", None)
    trial = None if decided is None else decided(counting)  # a stage's failed trials belong to it
    if trial is not None and not trial.user_attrs.get("violations"):
        found.insert(0, trial)
    baselines = [t for t in ranked if t.user_attrs.get(KIND) == "baseline"]
    chosen: list[Finalist] = []
    wanted = [(baselines, confirm.baselines), (found, confirm.best)]
    if len(setup.objectives) > 1:
        wanted.insert(0, (_spread([t for t in ranked if t.number in front], n_of_front(setup)), n_of_front(setup)))
    for group, n_wanted in wanted:
        n_before = len(chosen)
        for finalist in (_finalist(t, fit) for t in group):
            taken = {(f.architecture, f.design.learning_rate) for f in chosen}
            if (finalist.architecture, finalist.design.learning_rate) not in taken:
                chosen.append(finalist)
            if len(chosen) - n_before == n_wanted:
                break
    return chosen


def n_of_front(setup: Setup) -> int:
    """Designs of the front that are confirmed in a search for several objectives."""
    return _FRONT_FACTOR * setup.strategy.confirm.best if len(setup.objectives) > 1 else 0


def _spread(front: list[FrozenTrial], n: int) -> list[FrozenTrial]:
    """At most n of a front from its best score to its worst, both ends among them, evenly spaced."""
    if len(front) <= n:
        return front
    return [front[round(i * (len(front) - 1) / max(1, n - 1))] for i in range(n)]


def not_interrupted(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that count, baselines among them."""
    return [t for t in study.get_trials(deepcopy=False) if not t.user_attrs.get(INTERRUPTED)]


def _finalist(trial: FrozenTrial, fit: Callable[[Design], Architecture]) -> Finalist:
    design = Design.from_dict(trial.user_attrs["design"])
    return Finalist(
        name=trial.user_attrs["name"],
        baseline=trial.user_attrs.get(KIND) == "baseline",
        family=str(trial.user_attrs.get("family", "")),
        design=design,
        architecture=fit(design),
    )


def _design_key(trial: FrozenTrial) -> str:
    return Design.from_dict(trial.user_attrs["design"]).key
