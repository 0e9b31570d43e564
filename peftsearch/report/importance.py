"""Which dimensions of the space mattered: PED-ANOVA (arXiv 2304.10255) as Optuna has it, held against chance.

Among few trials every dimension with many choices looks important. So the same is computed with the scores shuffled
among the trials: only what rises above nearly all of these is told from chance. Choices of groups that a design does
not tune mean nothing and are left out; Optuna's evaluator handles such conditional parameters. (Optuna's fANOVA drops
them, and takes minutes on a few hundred trials of choices.)
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
from peftsearch.study.trials import Kind, State, TrialRecord

MIN_TRIALS = 20
"""Below them the best quarter has fewer than the five trials that Optuna asks for."""
_BEST_SHARE = 0.25
_N_SHUFFLES = 40
_CHANCE = 0.95


@dataclass(frozen=True, kw_only=True, slots=True)
class Importance:
    """How much a dimension matters."""

    name: str
    value: float
    """Divergence of the best quarter's choices from all trials'; the unit has no meaning, only the comparison."""
    chance: float
    """Value that shuffled scores exceed in one of twenty cases."""


def importances(trials: Sequence[TrialRecord], seed: int) -> list[Importance]:
    """Importance of each dimension that varies, most important first.

    Args:
        trials: Trials with a score.
        seed: Of the shuffles.
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
    """The trials in a study in memory, their numbers being their places."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    copies: list[FrozenTrial] = []
    for t in trials:
        kept = {name: t.distributions[name] for name in t.params}
        copies.append(create_trial(params=dict(t.params), distributions=kept, value=0.0))
    study.add_trials(copies)
    shared: dict[str, BaseDistribution] = {}
    for copy in study.get_trials(deepcopy=False):
        # one object for each dimension: the evaluator compares them choice by choice, which is most of its time
        copy.distributions = {name: shared.setdefault(name, d) for name, d in copy.distributions.items()}
    return study, [t.score or 0.0 for t in trials]


def _evaluate(study: optuna.Study, names: list[str], scores: Sequence[float]) -> Mapping[str, float]:
    from optuna.importance import PedAnovaImportanceEvaluator  # brings scikit-learn: seconds that few trials save

    evaluator = PedAnovaImportanceEvaluator(target_quantile=_BEST_SHARE)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*to achieve low `target` values")  # hence the minus
        return evaluator.evaluate(study, params=names, target=lambda t: -scores[t.number])


def importance(record: Record) -> Section:
    """Which dimensions set the best quarter of the search's trials apart."""
    trials = [t for t in record.scored if t.kind == Kind.SEARCH and t.state != State.INTERRUPTED and t.params]
    if len(trials) < MIN_TRIALS:
        why = f"{len(trials)} trials of the search count, at least {MIN_TRIALS} are needed to say which choices matter."
        return Section(title="Which choices mattered", items=[Text(text=why, kind="note")])
    found = importances(trials, record.settings.seed)
    told = [i.name for i in found if i.value > i.chance]
    says = f"Told from chance: {', '.join(told)}." if told else "No dimension is told from chance on these trials."
    items: list[Item] = [Text(text=says)]
    if found:
        items.append(
            Chart(
                figure=_figure(found),
                description="Importance of each dimension of the search space, and what chance alone gives",
                caption=f"PED-ANOVA over {len(trials)} trials: how differently the best quarter of them chose. The "
                f"marks are what shuffled scores stay below in {_CHANCE:.0%} of {_N_SHUFFLES} shuffles. A staged "
                "sampler varies a dimension only until it is decided, so later ones are seen on fewer designs.",
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
