"""Whether the budget limits the score: the head alone, cheap designs, the whole budget and full fine-tuning, compared.

Where a design with far fewer parameters is as good as the best at the budget, more of the budget would be wasted: the
confirmation then takes more cheap designs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

from optuna.trial import FrozenTrial, TrialState

from peftsearch.design.references import FULL
from peftsearch.searcher.prepare import Setup
from peftsearch.study.folder import StudyFolder
from peftsearch.study.trials import Kind, facts_of, is_interrupted, is_reference, rung_of

CHEAP = 0.6
"""Share of the best design's parameters up to which another counts as cheap."""
_TOLERANCE = 0.05
"""Share of the gain over the head alone that a cheap design may lack to count as equally good."""
_MOST_FULL_PARAMS = 250_000_000
"""Parameters of a backbone up to which full fine-tuning is tried without being asked for."""
FULL_COST = 2.5
"""Cost of a step of full fine-tuning in steps of a design."""
_MOST_SHARE = 0.08
"""Most that full fine-tuning may take of the whole search without being asked for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Headroom:
    """What the budget brings."""

    text: str
    is_limited: bool
    """Whether a larger part of the budget lowers the loss."""


def affords_full(setup: Setup, n_steps: int) -> bool:
    """Whether one full fine-tuning is a small part of a search.

    Args:
        setup: The settings of the study.
        n_steps: Planned steps of the whole search.
    """
    fits = setup.backbone.n_params <= _MOST_FULL_PARAMS and setup.options.quantize is None and setup.memory is None
    return fits and FULL_COST * setup.lengths.steps <= _MOST_SHARE * n_steps


def headroom_of(folder: StudyFolder, setup: Setup) -> Headroom | None:
    """What the budget brings, by the trainings of a study so far; None for strategies that do not look.

    Args:
        folder: The study.
        setup: The settings of the study.
    """
    if not setup.strategy.headroom:
        return None
    return headroom(folder.search.get_trials(deepcopy=False), folder.confirm.get_trials(deepcopy=False), setup)


def headroom(search: Sequence[FrozenTrial], confirm: Sequence[FrozenTrial], setup: Setup) -> Headroom | None:
    """Compare the losses so far; None before there are any.

    Args:
        search: Trials of the search.
        confirm: Trials of the confirmation, among them references.
        setup: The settings of the study.
    """
    done = [t for t in search if t.state == TrialState.COMPLETE and facts_of(t).loss is not None]
    own = [t for t in done if facts_of(t).kind not in (Kind.RATE, Kind.REPEAT)]
    first = [t for t in own if rung_of(t) == 0 and facts_of(t).n_params]
    if not first:
        return None
    best = min(first, key=_loss)
    most = CHEAP * (facts_of(best).n_params or 0)
    cheap = min((t for t in first if (facts_of(t).n_params or 0) <= most), key=_loss, default=None)
    head = next((t for t in done if facts_of(t).n_params == 0), None)
    start = None if head is None else _loss(head)
    is_limited = (facts_of(best).n_params or 0) > CHEAP * setup.budget.n_params
    is_limited &= cheap is None or start is None or _loss(cheap) - _loss(best) > _TOLERANCE * (start - _loss(best))
    untuned = "the frozen model" if head is not None and facts_of(head).name == "frozen" else "the head alone"
    parts = [] if head is None else [f"{start:.3f} with {untuned}"]
    if cheap is not None:
        share = 100 * (facts_of(cheap).n_params or 0) / setup.budget.n_params
        parts.append(f"{_loss(cheap):.3f} with {facts_of(cheap).name} at {share:.0f}% of the budget")
    share = 100 * (facts_of(best).n_params or 0) / setup.budget.n_params
    parts.append(f"{_loss(best):.3f} with {facts_of(best).name} at {share:.0f}%")
    text = f"Headroom: validation loss after {setup.lengths.rungs[0]} steps {', '.join(parts)}"
    full = [t for t in confirm if facts_of(t).name == FULL and not is_interrupted(t)]
    reached = next((facts_of(t).loss for t in full if t.state == TrialState.COMPLETE), None)
    if reached is not None:
        text += f"; full fine-tuning ends at {reached:.3f}"
        ends: dict[str, list[float]] = {}
        for t in confirm:
            if t.state == TrialState.COMPLETE and not is_reference(t) and facts_of(t).loss is not None:
                ends.setdefault(str(facts_of(t).name), []).append(_loss(t))
        if ends:
            lowest = min(ends, key=lambda name: mean(ends[name]))
            text += f", {lowest} at {mean(ends[lowest]):.3f}"
    if start is not None and start <= _loss(best):
        return Headroom(text=f"{text}: nothing is better than {untuned} yet.", is_limited=True)
    told = "a larger budget may help" if is_limited else "the budget does not limit it: a cheaper design may do as well"
    return Headroom(text=f"{text}: {told}.", is_limited=is_limited)


def _loss(trial: FrozenTrial) -> float:
    return float(trial.user_attrs["loss"])
