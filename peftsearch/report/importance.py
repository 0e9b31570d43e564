"""Importance of each dimension of the space by PED-ANOVA (arXiv 2304.10255), compared with chance.

With few trials, every dimension with many choices looks important. The importance is therefore computed again with the
scores shuffled among the trials: only values above nearly all of these differ from chance. Choices of groups that a
design does not tune have no effect and are left out; Optuna's evaluator handles such conditional parameters. (Optuna's
fANOVA drops them, and takes minutes on a few hundred trials with categorical choices.)
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, create_trial

from peftsearch.report.page import Chart, Item, Section, Text, label
from peftsearch.study.record import Record
from peftsearch.study.trial_record import TrialRecord
from peftsearch.study.trials import Kind, State
from peftsearch.units import plural

MIN_TRIALS = 20
"""Smallest number of trials: with fewer, the best quarter has less than the five that Optuna requires."""
_BEST_SHARE = 0.25
_N_SHUFFLES = 40
_CHANCE = 0.95


@dataclass(frozen=True, kw_only=True, slots=True)
class Importance:
    """The importance of a dimension, and the value that chance explains."""

    name: str
    value: float
    """Divergence of the best quarter's choices from those of all trials; only comparable with other dimensions."""
    chance: float
    """Value that shuffled scores exceed in one case of twenty."""


def importances(trials: Sequence[TrialRecord], seed: int) -> list[Importance]:
    """Importance of each dimension that varies, most important first.

    Args:
        trials: Trials with a score.
        seed: Seed of the shuffles.
    """
    study, scores = _study(trials)
    every = {name for t in trials for name in t.params}
    names = sorted(name for name in every if len({t.params.get(name) for t in trials}) > 1)
    if not names:
        return []
    real = _evaluate(study, names, scores)
    rng = random.Random(seed)
    chance: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(_N_SHUFFLES):
        shuffled = rng.sample(scores, len(scores))
        for name, value in _evaluate(study, names, shuffled).items():
            chance[name].append(value)
    bound = round(_CHANCE * (_N_SHUFFLES - 1))
    found = [Importance(name=n, value=real[n], chance=sorted(chance[n])[bound]) for n in names]
    return sorted(found, key=lambda i: -i.value)


def _study(trials: Sequence[TrialRecord]) -> tuple[optuna.Study, list[float]]:
    """Copy the trials into a study in memory, numbered by their position."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    copies: list[FrozenTrial] = []
    for t in trials:
        kept = {name: t.distributions[name] for name in t.params}
        copies.append(create_trial(params=dict(t.params), distributions=kept, value=0.0))
    study.add_trials(copies)
    shared: dict[str, BaseDistribution] = {}
    for copy in study.get_trials(deepcopy=False):
        # One object per dimension: the evaluator would otherwise spend its time comparing them choice by choice.
        copy.distributions = {name: shared.setdefault(name, d) for name, d in copy.distributions.items()}
    return study, [t.score or 0.0 for t in trials]


def _evaluate(study: optuna.Study, names: list[str], scores: Sequence[float]) -> Mapping[str, float]:
    from optuna.importance import PedAnovaImportanceEvaluator  # imports scikit-learn, which takes seconds

    evaluator = PedAnovaImportanceEvaluator(target_quantile=_BEST_SHARE)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*to achieve low `target` values")  # hence the minus
        return evaluator.evaluate(study, params=names, target=lambda t: -scores[t.number])


def importance(record: Record) -> Section:
    """Section with the dimensions that distinguish the best quarter of the search's trials."""
    trials = [t for t in record.scored if t.kind == Kind.SEARCH and t.state != State.INTERRUPTED and t.params]
    if len(trials) < MIN_TRIALS:
        why = f"{plural(len(trials), 'usable trial')} in the search; at least {MIN_TRIALS} are needed to rank choices."
        return Section(title="Which choices mattered", items=[Text(text=why, kind="note")])
    found = importances(trials, record.settings.seed)
    told = [i.name for i in found if i.value > i.chance]
    says = f"Above chance: {', '.join(told)}." if told else "No dimension is above chance on these trials."
    items: list[Item] = [Text(text=says)]
    if found:
        items.append(
            Chart(
                figure=_figure(found),
                description="Importance of each dimension of the search space, and its value by chance alone",
                caption=f"PED-ANOVA over {len(trials)} trials: how much the choices of the best quarter differ from "
                f"those of all. The marks show the value that {_CHANCE:.0%} of {_N_SHUFFLES} shuffles of the scores "
                "stay below. A staged sampler varies a dimension only until it is decided, so later dimensions are "
                "seen on fewer designs.",
                height=110 + 30 * len(found),
            )
        )
    return Section(title="Which choices mattered", items=items)


def _figure(found: Sequence[Importance]) -> dict[str, Any]:
    places = list(range(len(found)))
    bars = {
        "type": "bar", "orientation": "h", "name": "importance", "x": [i.value for i in found], "y": places,
        "marker": {"color": ["--blue" if i.value > i.chance else "--grey" for i in found]}, "hoverinfo": "x",
        "showlegend": False, "width": 0.6,
    }  # fmt: skip
    chance = {
        "type": "scatter", "mode": "markers", "name": "chance (95%)", "x": [i.chance for i in found], "y": places,
        "marker": {"symbol": "line-ns-open", "size": 20, "color": "--red", "line": {"width": 3}}, "hoverinfo": "x",
    }  # fmt: skip
    ticks = {"tickvals": places, "ticktext": [label(i.name) for i in found]}
    layout = {
        "xaxis": {"title": {"text": "importance"}, "rangemode": "tozero"},
        "yaxis": {**ticks, "range": [len(found) - 0.4, -0.6], "zeroline": False, "fixedrange": True},
    }
    return {"data": [bars, chance], "layout": layout}
