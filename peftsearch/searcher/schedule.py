"""Schedule the work of a study: baselines, trials, confirmation and references, from the stored history alone.

Any number of processes may ask for work: each claims one piece at a time under the study's lock (`StudyFolder.claim`).
A single process works through the phases in order. With several processes, the end of one phase may overlap with the
beginning of the next, but no confirmation begins before the last trial of the search has ended.
"""

from __future__ import annotations

import warnings
from enum import Enum
from math import inf
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from peftsearch.design.baselines import Baseline
from peftsearch.design.references import FULL, Reference, make_reference
from peftsearch.errors import AllTrialsFailed, one_line
from peftsearch.samplers.stages import stage_line
from peftsearch.searcher.confirmation import current, open_confirmations
from peftsearch.searcher.finalists import also_confirmed, choose_finalists
from peftsearch.searcher.headroom import affords_full, headroom_of
from peftsearch.searcher.options import parse_time
from peftsearch.searcher.patience import ended_early
from peftsearch.searcher.planning import LOADING_S, planned_steps
from peftsearch.searcher.prepare import Setup
from peftsearch.searcher.progress import Reporter
from peftsearch.searcher.promotion import Further, open_promotions, open_rates, open_repeats
from peftsearch.searcher.runner import FIRST_CONFIRM_SEED, TrialRunner
from peftsearch.searcher.work import Work
from peftsearch.study.confirmed import Confirmed
from peftsearch.study.folder import StudyFolder
from peftsearch.study.notes import add_references, keep_stages, stages_of
from peftsearch.study.private_optuna import create_trial
from peftsearch.study.trials import (
    Kind,
    Phase,
    TrialFacts,
    busy_seconds,
    counted,
    excess_of,
    facts_of,
    is_infeasible,
    is_interrupted,
    is_reference,
    next_place,
    not_interrupted,
    place_of,
    retry_of,
    write_facts,
)

_RANKED = (Kind.BASELINE, Kind.PROMOTED)
"""What, besides the trials of the search, must end before the best are known."""
_TRIES_PER_TRIAL = 10
"""Proposals per trial before the search gives up; samplers check many designs for each proposal."""


class Pause(Enum):
    """Answer of the schedule when no work can begin until a running trial ends."""

    PAUSE = "pause"


PAUSE = Pause.PAUSE


class Schedule:
    """Hand out the work of a study.

    Args:
        setup: The validated setup.
        folder: The study; its history is continued.
        runner: Runner that begins the trials.
        reporter: Receiver of phases and decisions.
    """

    def __init__(self, setup: Setup, folder: StudyFolder, runner: TrialRunner, reporter: Reporter) -> None:
        self._setup = setup
        self._folder = folder
        self._runner = runner
        self._reporter = reporter
        self._phase = ""
        self._n_stages = len(stages_of(folder.search))
        self.baselines = list(setup.baselines)
        self._limited: bool | None = None
        self._said_early = False
        # Under the lock, since another process may add references of its own at the same time.
        with folder.claim():
            asked = add_references(folder.confirm, [r.name for r in setup.references])
        self.references = tuple(make_reference(name, setup.loaded) for name in asked)
        self._yardstick = self._choose_yardstick(setup)
        folder.use(setup.sampler, setup.pruner)

    def _choose_yardstick(self, setup: Setup) -> Reference | None:
        """Full fine-tuning with one seed, where the strategy wants it and it is a small part of the search."""
        if FULL in [r.name for r in self.references] or not setup.strategy.headroom:
            return None
        n_whole = setup.strategy.confirm.n_trainings(setup.strategy.confirm.n_arms)
        n_steps = planned_steps(setup, len(self.baselines), setup.strategy.trials, n_whole)
        return make_reference(FULL, setup.loaded) if affords_full(setup, n_steps) else None

    def next(self) -> Work | Pause | None:
        """Claim the next piece of work.

        Returns:
            The work; `PAUSE` while other trials must end first; None when nothing is left to begin or to wait for.

        Raises:
            AllTrialsFailed: No trial of the search, or of the confirmation, has a score.
        """
        with self._folder.claim():
            self._folder.release_dead()
            found: Work | Pause | None = self._next_baseline() or self._next_yardstick()
            if found is not None:
                return found
            if self._limited is None and not _running(self._folder.search, Kind.BASELINE):
                self._say_headroom()
            # Trials of other processes end at any moment, so that what runs is read before what depends on its end.
            runs = _running(self._folder.search)
            found = self._next_search()
            if found is not None:
                return found
            # Promotions and finalists depend on every trial before them, so each waits for the last one.
            found = self._next_further()
            if found is not None or runs:
                return found or PAUSE
            require_scores(self._folder.search, self._folder)
            self._say_headroom()
            found = self._next_confirmation()
            if found is None and not _running(self._folder.confirm):
                require_scores(self._folder.confirm, self._folder)
            return found

    def is_over(self) -> bool:
        """Whether nothing is left to train."""
        trials = self._folder.search.get_trials(deepcopy=False)
        if self._open_baselines() or not self._search_is_over(trials) or self._open_further(trials)[1]:
            return False
        if self._yardstick is not None and (self._yardstick.name, self._seeds[0]) not in self._begun():
            return False
        return not self._open_confirmations(self.finalists()) and not self._open_references()

    def finalists(self) -> list[Confirmed]:
        """Choose the designs to confirm, from the history."""
        chosen = choose_finalists(self._folder.search, self._setup, self._runner.fit)
        return [*chosen, *also_confirmed(self._folder.confirm, chosen, self._setup, self._runner.fit)]

    def _next_baseline(self) -> Work | None:
        left = self._open_baselines()
        if left:
            self._begin_phase(Phase.BASELINES, len(left))
        for baseline in left:
            facts = TrialFacts(kind=Kind.BASELINE, baseline=baseline.name, family=baseline.family)
            space = self._setup.context.distributions if baseline.params else {}
            trial = _create(self._folder.search, facts, dict(baseline.params or {}), space)
            work = self._runner.begin(self._folder.search, trial, baseline.design, Phase.BASELINES, baseline.name)
            # None: it does not fit or its result was reused, so that there is nothing to train.
            if work is not None:
                return work
        return None

    def _open_baselines(self) -> list[Baseline]:
        known = {facts_of(t).baseline for t in not_interrupted(self._folder.search)}
        return [b for b in self.baselines if b.name not in known]

    def _next_search(self) -> Work | Pause | None:
        study, setup = self._folder.search, self._setup
        while True:
            trials = study.get_trials(deepcopy=False)
            lost = next(iter(_to_retry(trials)), None)
            # A retry comes first: it may belong to a stage that would close without it.
            if lost is None:
                self._record_stages(trials)
                if self._search_is_over(trials):
                    return None
            self._begin_phase(Phase.SEARCH, setup.strategy.trials - _spent(trials))
            # A staged sampler waits for the running trials of a stage before it decides and opens the next one.
            waiting = getattr(setup.sampler, "waiting", None)
            if lost is None and waiting is not None and waiting(trials):
                return PAUSE
            # A retry keeps the lost trial's place, so that later trials get the places and seeds they would have had.
            place = next_place(trials) if lost is None else place_of(lost)
            trial = _ask(study, setup.context.distributions) if lost is None else create_trial(study, retry_of(lost))
            write_facts(trial, TrialFacts(place=place))
            work = self._runner.begin(study, trial, setup.space.design(trial.params), Phase.SEARCH, f"trial {place}")
            if work is not None:
                return work

    def _record_stages(self, trials: list[FrozenTrial]) -> None:
        """Store and report the decisions of closed stages, for samplers that have stages."""
        decisions = getattr(self._setup.sampler, "decisions", None)
        if decisions is None:
            return
        study = self._folder.search
        stages = [s.to_dict() for s in decisions(trials) if s.chosen is not None]
        # Each process reports a stage once, but only the first to see it closed stores it.
        for stage in stages[self._n_stages :]:
            self._reporter.note(stage_line(stage))
        self._n_stages = max(self._n_stages, len(stages))
        if len(stages) > len(stages_of(study)):
            keep_stages(study, stages)

    def _search_is_over(self, trials: list[FrozenTrial]) -> bool:
        exhausted = getattr(self._setup.sampler, "exhausted", None)
        if exhausted is not None and exhausted(trials):
            return True
        if _spent(trials) >= self._setup.strategy.trials:
            return True
        if early := ended_early(trials, self._setup):
            self._say_early(early)
            return True
        # Infeasible proposals are not spent, so a space in which hardly anything fits would never end the search.
        if len(counted(trials)) >= _TRIES_PER_TRIAL * self._setup.strategy.trials:
            self._say_early("The search ends early: too few of the proposed designs fit the budget.")
            return True
        return False

    def _say_early(self, why: str) -> None:
        """Say once why the search ends early."""
        if not self._said_early:
            self._said_early = True
            self._reporter.note(why)

    def _next_further(self) -> Work | None:
        """Train a chosen design up to the next rung, or at another learning rate."""
        study = self._folder.search
        while True:
            phase, left = self._open_further(study.get_trials(deepcopy=False))
            if not left:
                return None
            self._begin_phase(phase, len(left))
            one = left[0]
            trial = _create(study, one.facts)
            work = self._runner.begin(study, trial, one.design, phase, one.name, seed=one.seed, rung=one.rung)
            if work is not None:
                return work

    def _open_further(self, trials: list[FrozenTrial]) -> tuple[Phase, list[Further]]:
        """Trainings of known designs that nothing has begun: to later rungs, with other seeds, then at other rates."""
        if left := open_promotions(trials, self._setup):
            return Phase.PROMOTE, left
        if any(t.state == TrialState.RUNNING and facts_of(t).kind in (None, *_RANKED) for t in trials):
            return Phase.REPEAT, []
        if left := open_repeats(trials, self._setup):
            return Phase.REPEAT, left
        last = [t for t in trials if t.state == TrialState.RUNNING and facts_of(t).kind != Kind.RATE]
        if last or not self._setup.strategy.search.rates:
            return Phase.RATES, []
        own = choose_finalists(self._folder.search, self._setup, self._runner.fit, tuned=False)
        return Phase.RATES, open_rates(trials, self._setup, own)

    def _next_confirmation(self) -> Work | Pause | None:
        study = self._folder.confirm
        runs = _running(study)  # before the history is read: a trial may end meanwhile
        jobs = self._open_confirmations(self.finalists())
        if jobs:
            self._begin_phase(Phase.CONFIRM, len(jobs))
        for finalist, seed in jobs:
            assert finalist.design is not None, "a finalist has its design"
            trial = _create(study, TrialFacts(family=finalist.family if finalist.baseline else None))
            work = self._runner.begin(study, trial, finalist.design, Phase.CONFIRM, finalist.name, seed=seed)
            if work is not None:
                return work
        return self._next_reference() or (PAUSE if runs else None)

    def _next_yardstick(self) -> Work | None:
        reference, seed = self._yardstick, self._seeds[0]
        if reference is None or (reference.name, seed) in self._begun():
            return None
        study = self._folder.confirm
        self._begin_phase(Phase.REFERENCES, 1)
        return self._runner.begin_reference(study, _create(study, TrialFacts(kind=Kind.REFERENCE)), reference, seed)

    def _say_headroom(self) -> None:
        """Say whether the budget limits the score: after the baselines, and again if the search changes the answer."""
        found = headroom_of(self._folder, self._setup)
        if found is not None and found.is_limited != self._limited:
            self._limited = found.is_limited
            self._reporter.note(found.text)

    def _next_reference(self) -> Work | None:
        study, jobs = self._folder.confirm, self._open_references()
        if not jobs:
            return None
        self._begin_phase(Phase.REFERENCES, len(jobs))
        return self._runner.begin_reference(study, _create(study, TrialFacts(kind=Kind.REFERENCE)), *jobs[0])

    def _open_confirmations(self, finalists: list[Confirmed]) -> list[tuple[Confirmed, int]]:
        """Trainings that the confirmation wants and no process has begun."""
        confirmations = current(self._folder.confirm, self._setup)
        return open_confirmations(self._setup, finalists, confirmations, self._seeds, self._seconds_left())

    def _seconds_left(self) -> float:
        """What `--time` leaves of the run, in seconds of one process; as many are counted as trained side by side."""
        if self._setup.options.search.time is None or self._setup.options.search.untimed:
            return inf
        trials = [t for s in (self._folder.search, self._folder.confirm) for t in s.get_trials(deepcopy=False)]
        busy = busy_seconds(trials)
        width = max(1.0, sum(facts_of(t).wall_s or 0.0 for t in trials) / busy) if busy else 1.0
        return (parse_time(self._setup.options.search.time) - LOADING_S - busy) * width

    def _open_references(self) -> list[tuple[Reference, int]]:
        """Trainings of the references that no process has begun."""
        begun = self._begun()
        seeds = self._seeds[: self._setup.strategy.confirm.looks[0]]
        return [(r, seed) for seed in seeds for r in self.references if (r.name, seed) not in begun]

    def _begun(self) -> set[tuple[Any, Any]]:
        """Names and seeds of the confirmation's trainings that were begun."""
        return {(t.facts.name, t.facts.seed) for t in current(self._folder.confirm, self._setup)}

    @property
    def _seeds(self) -> range:
        first = self._setup.options.seed + FIRST_CONFIRM_SEED
        return range(first, first + self._setup.strategy.confirm.seeds)

    def _begin_phase(self, name: Phase, n_trials: int) -> None:
        if name != self._phase:
            self._phase = name
            self._reporter.phase(name, n_trials)


def require_scores(study: optuna.Study, folder: StudyFolder) -> None:
    """Check that a study has a score within the limits, excluding references.

    Raises:
        AllTrialsFailed: The study has no such score; the message gives the reasons.
    """
    trials = [t for t in not_interrupted(study) if not is_reference(t)]
    scored = [t for t in trials if t.state == TrialState.COMPLETE]
    if any(not facts_of(t).exceeds_limits for t in scored):
        return
    if scored:
        limits = one_line("; ".join(facts_of(min(scored, key=excess_of)).violations or ()))
        raise AllTrialsFailed(
            f"no design meets the limits; the closest: {limits}; give larger limits or a smaller --batch-size"
        )
    reasons = sorted({reason for t in trials if (reason := facts_of(t).reason)})
    every = "the only trial" if len(trials) == 1 else f"all {len(trials)} trials"
    raise AllTrialsFailed(
        f"{every} failed: {one_line('; '.join(reasons[:3]))}; they are recorded in "
        f"{folder.path}; a lower --learning-rate or a smaller --batch-size may help"
    )


def _spent(trials: list[FrozenTrial]) -> int:
    """Number of trials that use up the search's limit: running, trained or failed, but not infeasible."""
    return sum(not is_infeasible(t) for t in counted(trials))


def _running(study: optuna.Study, kind: Kind | None = None) -> bool:
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    return any(kind is None or facts_of(t).kind == kind for t in running)


def _ask(study: optuna.Study, distributions: dict[str, BaseDistribution]) -> optuna.Trial:
    """Begin a trial that the sampler chooses."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Heartbeat of storage")  # `TrialRunner.run` records them
        return study.ask(distributions)


def _create(
    study: optuna.Study,
    facts: TrialFacts,
    params: dict[str, Any] | None = None,
    distributions: dict[str, BaseDistribution] | None = None,
) -> optuna.Trial:
    """Begin a trial with given parameters, without a sampler."""
    template = optuna.create_trial(
        state=TrialState.RUNNING,
        params=params or {},
        distributions=distributions or {},
        user_attrs=facts.attributes(),
    )
    return create_trial(study, template)


def _to_retry(trials: list[FrozenTrial]) -> list[FrozenTrial]:
    """Interrupted trials of the search whose place no other trial has taken, lowest place first."""
    taken = {place_of(t) for t in counted(trials)}
    lost = {place: t for t in trials if is_interrupted(t) and (place := place_of(t)) is not None}
    return [lost[place] for place in sorted(lost) if place not in taken]
