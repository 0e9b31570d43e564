"""Which designs are confirmed: the best baselines, the strategy's decision, and the best of the search."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import mean

import optuna
from optuna.trial import FrozenTrial, TrialState

from peftsearch.architecture import Architecture, Design
from peftsearch.samplers.context import INTERRUPTED, KIND, score_of
from peftsearch.setup import Setup


@dataclass(frozen=True, kw_only=True, slots=True)
class Finalist:
    """A design that is confirmed."""

    name: str
    """Baseline's name, or `trial 17` by its place in the search; interrupted trials do not count."""
    baseline: bool
    design: Design
    architecture: Architecture


def choose_finalists(study: optuna.Study, setup: Setup, fit: Callable[[Design], Architecture]) -> list[Finalist]:
    """The best baselines, the design that the strategy decided on, and the best of the search, from the history.

    Designs that were trained several times rank by their mean; those that violate a constraint are left out.

    Args:
        study: The search, over.
        setup: Its settings.
        fit: Sizes a design.
    """
    trials = [
        t for t in not_interrupted(study) if t.state == TrialState.COMPLETE and not t.user_attrs.get("violations")
    ]
    scores: dict[str, list[float]] = {}
    for t in trials:
        scores.setdefault(_design_key(t), []).append(score_of(t))
    ranked = sorted(trials, key=lambda t: (-mean(scores[_design_key(t)]), t.number))
    found = [t for t in ranked if t.user_attrs.get(KIND) != "baseline"]
    decided = getattr(setup.sampler, "decided_trial", None)
    if decided is not None and (trial := decided(trials)) is not None:
        found.insert(0, trial)
    baselines = [t for t in ranked if t.user_attrs.get(KIND) == "baseline"]
    chosen: list[Finalist] = []
    confirm = setup.strategy.confirm
    for group, n_wanted in ((baselines, confirm.baselines), (found, confirm.best)):
        n_before = len(chosen)
        for finalist in (_finalist(t, fit) for t in group):
            taken = {(f.architecture, f.design.learning_rate) for f in chosen}
            if (finalist.architecture, finalist.design.learning_rate) not in taken:
                chosen.append(finalist)
            if len(chosen) - n_before == n_wanted:
                break
    return chosen


def not_interrupted(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that count, baselines among them."""
    return [t for t in study.get_trials(deepcopy=False) if not t.user_attrs.get(INTERRUPTED)]


def _finalist(trial: FrozenTrial, fit: Callable[[Design], Architecture]) -> Finalist:
    design = Design.from_dict(trial.user_attrs["design"])
    return Finalist(
        name=trial.user_attrs["name"],
        baseline=trial.user_attrs.get(KIND) == "baseline",
        design=design,
        architecture=fit(design),
    )


def _design_key(trial: FrozenTrial) -> str:
    return Design.from_dict(trial.user_attrs["design"]).key
