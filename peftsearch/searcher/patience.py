"""The end of a search that finds nothing better for long."""

from __future__ import annotations

from collections.abc import Sequence

from optuna.trial import FrozenTrial, TrialState

from peftsearch.searcher.prepare import Setup
from peftsearch.study.trials import counted, value_of
from peftsearch.units import plural


def ended_early(trials: Sequence[FrozenTrial], setup: Setup) -> str:
    """Say that the search ended, as none of its last trials was better than the ones before; empty if it did not.

    Args:
        trials: All trials of the search.
        setup: The settings of the study; a staged sampler, which compares choices and not trials, never ends early.
    """
    patience = setup.strategy.patience
    if patience is None or len(setup.objectives) > 1 or hasattr(setup.sampler, "decisions"):
        return ""
    values = [value_of(t) for t in counted(trials) if t.state == TrialState.COMPLETE]
    best = max(range(len(values)), key=values.__getitem__, default=0)
    waited = len(values) - 1 - best
    if waited < patience or len(values) >= setup.strategy.trials:
        return ""
    return (
        f"The search ended after {len(values)} of {plural(setup.strategy.trials, 'trial')}: "
        f"none of the last {waited} was better than the best before them."
    )
