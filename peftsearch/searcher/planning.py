"""How many optimizer steps a search takes, and how long and how broad it can be in a given time."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

from peftsearch.design.fitting import fit
from peftsearch.engine.local import LocalEngine
from peftsearch.errors import ConfigError
from peftsearch.options import given
from peftsearch.samplers import make_sampler
from peftsearch.samplers.strategy import Strategy
from peftsearch.searcher.finalists import n_of_front
from peftsearch.searcher.headroom import FULL_COST
from peftsearch.searcher.lengths import BOUNDS, FEWEST_EXAMPLES, choose_lengths
from peftsearch.searcher.prepare import Plan, Setup
from peftsearch.study.trial_record import TrialRecord
from peftsearch.study.trials import Kind

FEWEST_STEPS = 20
"""Fewest steps of a training, however little time there is."""
LOADING_S = 10.0
"""Seconds for loading, fitting the heads and measuring, where they are not measured."""
CONCLUDING_S = 2.0
"""Seconds for the verdict and the files."""
_OVERHEAD = 1.15
"""Time of a search as a multiple of its training steps' and validations': measuring, preparing, storing."""
_FULL_SHARE = 1.08
"""Time of a search with full fine-tuning as its yardstick, as a multiple of that without."""
_IDLE = 0.9
"""Share of the time that several processes train, since some wait where the schedule depends on all of them."""
_LONG, _SHORT = 300, BOUNDS[0]
"""Steps for which the breadth of a strategy is kept, and below which it is cut down to the narrowest."""
_FEWEST_SEEDS = 4
"""Seeds of the first look where there is little time."""
_FEW_TRIALS = 4
"""Fewest trials of a search with little time."""
_ARMS_OF_SECOND_LOOK = 2
"""Designs that the second look of the confirmation usually still compares."""
LEAST_OF_RATES = 30
"""Fewest steps of the last rung that learning rates are chosen by: in fewer the lowest rate looks best, whatever the
training would come to, and baselines end at it."""
_WIDER = (4.0, 3.0, 2.0, 1.5)
"""Factors on the number of trials that are tried where there is time for more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pace:
    """How fast a model trains here, and how long its trainings usually are."""

    step_s: float
    """Seconds of a training step."""
    score_s: float
    """Seconds of a validation on all examples."""
    width: int
    """Number of processes that train side by side."""


def plan_within(end: float, setup: Setup, engine: LocalEngine, width: int) -> Plan:
    """The breadth and length of a search whose second look of the confirmation ends in time.

    The length of the trainings is that of the data if there is time. Where there is less, first their length is cut, to
    300 steps, then the breadth (trials, finalists, seeds), then the length again; where the rungs become too short to
    tell learning rates apart, all designs keep their own. Where there is more, there are more trials.

    Args:
        end: When the search is to end, by `time.monotonic`.
        setup: The settings of the study, with the strategy's own breadth and the usual length.
        engine: Engine that measures the time of a step.
        width: Number of processes.
    """
    design = next((b.design for b in setup.fitting if b.design.tunable), None)
    if design is None:
        return Plan(strategy=setup.strategy, steps=setup.lengths.steps)
    step_s, score_s = engine.calibrate(fit(design, setup.backbone, setup.budget))
    seconds = end - time.monotonic()
    pace = Pace(step_s=step_s, score_s=score_s, width=width)
    usual = setup.lengths.steps
    own = setup.strategy
    chosen = set(given(setup.options.search, "trials", "seeds"))  # no time limit changes what the user chose
    if not _works_with(setup, min(own.trials, _FEW_TRIALS)):
        chosen.add("trials")
    levels = [(_wider(own, factor), usual) for factor in _WIDER if "trials" not in chosen]
    levels += [(own, min(usual, _LONG))]
    levels += [(narrow, min(usual, _SHORT)) for narrow in _narrower(own, chosen)]
    for strategy, least in levels:
        steps = steps_within(seconds, setup, strategy, pace)
        if steps >= least:
            break
    if strategy.search.rates and strategy.search.rungs[-1] * steps < LEAST_OF_RATES:
        strategy = replace(strategy, search=replace(strategy.search, rates=()))
        steps = steps_within(seconds, setup, strategy, pace)
    return Plan(strategy=strategy, steps=max(FEWEST_STEPS, min(steps, usual)))


def steps_within(seconds: float, setup: Setup, strategy: Strategy, pace: Pace) -> int:
    """The length of a training with which a strategy takes a given time; may be below 1.

    Args:
        seconds: The time.
        setup: The settings of the study, with any strategy and length.
        strategy: The strategy.
        pace: How fast the model trains.
    """
    n_baselines, confirm, whole = len(setup.fitting), strategy.confirm, 1000
    lengths = choose_lengths(
        strategy.search,
        n_train=[len(task.train) for task in setup.suite.tasks],
        batch_size=setup.training.batch_size,
        steps=whole,
    )
    n_arms = confirm.n_arms + n_of_front(setup)
    n_whole = confirm.n_trainings(n_arms) + FULL_COST * len(setup.references) * confirm.looks[0]
    if len(confirm.looks) > 1:  # five seeds seldom decide
        n_whole += _ARMS_OF_SECOND_LOOK * (confirm.looks[1] - confirm.looks[0])
    longer = replace(setup, lengths=lengths, strategy=strategy)
    n_steps = planned_steps(longer, n_baselines, strategy.trials, n_whole) * (_FULL_SHARE if strategy.headroom else 1)
    # A rung is validated on some of the examples; a confirmation on all of them, and on the reported ones.
    n_short = (1 + len(strategy.search.rates)) * n_arms + n_baselines + strategy.trials
    share = min(1.0, FEWEST_EXAMPLES / max(len(task.validation) for task in setup.suite.tasks))
    scoring_s = pace.score_s * (n_short * share + 2 * n_whole)
    available = (seconds - CONCLUDING_S) * pace.width * (_IDLE if pace.width > 1 else 1.0) / _OVERHEAD
    return int((available - scoring_s) / (pace.step_s * n_steps / whole)) if pace.step_s else BOUNDS[1]


def _works_with(setup: Setup, n_trials: int) -> bool:
    """Whether the strategy's sampler can do with so few trials; one with stages needs some for each."""
    strategy = setup.strategy
    try:
        make_sampler(strategy.sampler, replace(setup.context, n_trials=n_trials), dict(strategy.sampler_settings))
    except ConfigError:
        return False
    return True


def _wider(strategy: Strategy, factor: float) -> Strategy:
    return replace(strategy, trials=round(factor * strategy.trials))


def _narrower(strategy: Strategy, chosen: Collection[str]) -> Iterator[Strategy]:
    """The strategy with less and less breadth: first what costs the answer least."""
    if "trials" not in chosen:
        strategy = replace(strategy, trials=min(strategy.trials, 8))
        yield strategy
    strategy = replace(strategy, confirm=replace(strategy.confirm, best=1))
    yield strategy
    strategy = replace(strategy, search=replace(strategy.search, seeds=1))
    yield strategy
    if "trials" not in chosen:
        strategy = replace(strategy, trials=min(strategy.trials, _FEW_TRIALS))
        yield strategy
    if "seeds" not in chosen:
        looks = strategy.confirm.looks
        yield replace(strategy, confirm=replace(strategy.confirm, looks=(min(looks[0], _FEWEST_SEEDS), *looks[1:])))


def time_for(look: int, earlier: int, n_arms: int, confirmations: Sequence[TrialRecord]) -> float:
    """Seconds of one process that the confirmation takes from one look to the next, by its trainings so far."""
    taken = [t.facts.wall_s for t in confirmations if t.facts.wall_s and t.kind != Kind.REFERENCE]
    return (look - earlier) * n_arms * sum(taken) / len(taken) if taken else 0.0


def planned_steps(setup: Setup, n_baselines: int, n_search: int, n_confirmations: float) -> int:
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
        left = [(fidelity.n_kept(n, least), least) for n, least in left]
        total += sum(n for n, _ in left) * (lengths.rungs[rung] - lengths.rungs[rung - 1])
    n_again = sum(fidelity.n_kept(n, least) for n, least in left)
    total += n_again * (fidelity.seeds - 1) * lengths.rungs[-1]
    n_rates = len(fidelity.rates) * lengths.rungs[0] + max(0, lengths.rungs[-1] - lengths.rungs[0])
    n_rated = confirm.n_arms + max(0, fidelity.n_kept(n_baselines, confirm.baselines) - confirm.baselines)
    return round(total + (n_rated * n_rates if fidelity.rates else 0) + n_confirmations * lengths.steps)
