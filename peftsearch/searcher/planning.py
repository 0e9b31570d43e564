"""How many optimizer steps a search takes, and how long its trainings can be in a given time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from peftsearch.design.baselines import baselines_of
from peftsearch.design.fitting import fit
from peftsearch.engine.local import LocalEngine
from peftsearch.searcher.lengths import BOUNDS, FEWEST_EXAMPLES, choose_lengths
from peftsearch.searcher.prepare import Setup
from peftsearch.study.trials import TrialRecord

FEWEST_STEPS = 20
"""Fewest steps of a training, however little time there is."""
_OVERHEAD = 1.15
"""Time of a search as a multiple of its training steps' and validations': measuring, preparing, storing."""
_LOADING_S = 10.0
"""Seconds that loading and fitting the heads may take."""


def steps_within(seconds: float, setup: Setup, engine: LocalEngine) -> int:
    """The length of a training with which a search up to the first look of its confirmation takes a given time.

    Args:
        seconds: The time.
        setup: The settings of the study, with any length.
        engine: Engine that measures the time of a step.
    """
    baselines = [b for b in baselines_of(setup.space, setup.backbone) if setup.context.feasible(b.design)]
    confirm = setup.strategy.confirm
    n_arms = confirm.baselines + confirm.best + confirm.cheap
    whole = 1000
    lengths = choose_lengths(
        setup.strategy.search,
        n_train=[len(task.train) for task in setup.suite.tasks],
        batch_size=setup.training.batch_size,
        steps=whole,
    )
    n_steps = planned_steps(
        replace(setup, lengths=lengths), len(baselines), setup.strategy.trials, n_arms * confirm.looks[0]
    )
    design = next((b.design for b in baselines if b.design.tunable), None)
    if design is None:
        return setup.lengths.steps
    step_s, score_s = engine.calibrate(fit(design, setup.backbone, setup.budget))
    # A rung is validated on some of the examples; a confirmation on all of them, and on the reported ones.
    n_short = (1 + len(setup.strategy.search.rates)) * n_arms + len(baselines) + setup.strategy.trials
    share = min(1.0, FEWEST_EXAMPLES / max(len(task.validation) for task in setup.suite.tasks))
    scoring_s = score_s * (n_short * share + 2 * n_arms * confirm.looks[0])
    left = (seconds - _LOADING_S) / _OVERHEAD - scoring_s
    affordable = int(left / (step_s * n_steps / whole)) if step_s else BOUNDS[1]
    return max(FEWEST_STEPS, min(affordable, BOUNDS[1]))


def time_for(look: int, earlier: int, n_arms: int, confirmations: Sequence[TrialRecord]) -> float:
    """Seconds that the confirmation takes from one look to the next, by its trainings so far."""
    taken = [t.facts.wall_s for t in confirmations if t.facts.wall_s]
    return (look - earlier) * n_arms * sum(taken) / len(taken) if taken else 0.0


def planned_steps(setup: Setup, n_baselines: int, n_search: int, n_confirmations: int) -> int:
    """Optimizer steps of a search whose trials all fit and end.

    Args:
        setup: The settings of the study.
        n_baselines: Baselines of the first rung.
        n_search: Trials of the search.
        n_confirmations: Whole trainings of the confirmation.
    """
    lengths, fidelity, confirm = setup.lengths, setup.strategy.search, setup.strategy.confirm
    left = [(n_search, confirm.best), (n_baselines, confirm.baselines)]
    total = sum(n for n, _ in left) * lengths.rungs[0]
    for rung in range(1, len(lengths.rungs)):
        left = [(min(n, max(least, -(-n // fidelity.keep))), least) for n, least in left]
        total += sum(n for n, _ in left) * (lengths.rungs[rung] - lengths.rungs[rung - 1])
    n_arms = confirm.baselines + confirm.best + confirm.cheap
    n_rates = len(fidelity.rates) * lengths.rungs[0] + max(0, lengths.rungs[-1] - lengths.rungs[0])
    return total + (n_arms * n_rates if fidelity.rates else 0) + n_confirmations * lengths.steps
