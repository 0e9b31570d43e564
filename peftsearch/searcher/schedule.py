"""What comes next: baselines, trials, the confirmation, references; decided from the stored history alone.

Any number of processes may ask: each claims one piece of work at a time under the study's lock (`StudyFolder.claim`).
The order of a single process is the order of the phases; several run a phase's end and the next one's beginning side by
side, but no confirmation begins before the last trial of the search has ended.
"""

from __future__ import annotations

import warnings
from enum import Enum
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from peftsearch.design.baselines import Baseline, baselines_of
from peftsearch.design.references import Reference, make_reference
from peftsearch.errors import AllTrialsFailed, one_line
from peftsearch.samplers.stages import stage_line
from peftsearch.searcher.finalists import choose_finalists
from peftsearch.searcher.prepare import Setup
from peftsearch.searcher.progress import Reporter
from peftsearch.searcher.runner import TrialRunner, Work
from peftsearch.study.confirmed import Confirmed
from peftsearch.study.folder import StudyFolder
from peftsearch.study.notes import add_references, keep_stages, stages_of
from peftsearch.study.private_optuna import create_trial
from peftsearch.study.trials import (
    Kind,
    Phase,
    TrialFacts,
    counted,
    facts_of,
    is_interrupted,
    is_reference,
    next_place,
    not_interrupted,
    place_of,
    retry_of,
    write_facts,
)

_TRIES_PER_TRIAL = 10
"""Designs that may be proposed for each that fits, before the search gives up; the samplers look at many for each."""
_CONFIRM_SEED = 1000
"""Distance of the confirmation's seeds from those of the search, which it must not share."""


class Pause(Enum):
    """Nothing can be begun until a running trial ends."""

    PAUSE = "pause"


PAUSE = Pause.PAUSE


class Schedule:
    """Hands out the work of a study.

    Args:
        setup: What to search, and with what.
        folder: Where it is kept; its history is taken up.
        runner: Begins trials.
        reporter: Is told of phases and decisions.
    """

    def __init__(self, setup: Setup, folder: StudyFolder, runner: TrialRunner, reporter: Reporter) -> None:
        self._setup = setup
        self._folder = folder
        self._runner = runner
        self._reporter = reporter
        self._phase = ""
        self._n_stages = len(stages_of(folder.search))
        self.baselines = baselines_of(setup.space, setup.backbone)
        with folder.claim():
            names = add_references(folder.confirm, [r.name for r in setup.references])
            self.references = tuple(make_reference(name, setup.loaded) for name in names)
        folder.use(setup.sampler, setup.pruner)

    def next(self) -> Work | Pause | None:
        """Claim the next piece of work.

        Returns:
            The work; `PAUSE` while other trials have to end first; None when nothing is left to begin or to wait for.

        Raises:
            AllTrialsFailed: No trial of the search, or of the confirmation, has a score.
        """
        with self._folder.claim():
            self._folder.release_dead()
            found = self._next_baseline() or self._next_search()
            if found is not None:
                return found
            if _running(self._folder.search):
                return PAUSE
            require_scores(self._folder.search, self._folder)
            found = self._next_confirmation()
            if found is None and not _running(self._folder.confirm):
                require_scores(self._folder.confirm, self._folder)
            return found

    def is_over(self) -> bool:
        """Whether nothing is left to train."""
        if self._open_baselines() or not self._search_is_over():
            return False
        return not self._open_confirmations(self.finalists()) and not self._open_references()

    def finalists(self) -> list[Confirmed]:
        """The designs to confirm, from the history."""
        return choose_finalists(self._folder.search, self._setup, self._runner.fit)

    def _next_baseline(self) -> Work | None:
        left = self._open_baselines()
        if left:
            self._begin_phase(Phase.BASELINES, len(left))
        for baseline in left:
            facts = TrialFacts(kind=Kind.BASELINE, baseline=baseline.name, family=baseline.family)
            space = self._setup.context.distributions if baseline.params else {}
            trial = _create(self._folder.search, facts, dict(baseline.params or {}), space)
            work = self._runner.begin(self._folder.search, trial, baseline.design, Phase.BASELINES, baseline.name)
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
            if lost is None:  # a retry comes first: it may belong to a stage that would close without it
                self._record_stages()
                if self._search_is_over():
                    return None
            self._begin_phase(Phase.SEARCH, setup.strategy.trials - self._spent())
            waiting = getattr(setup.sampler, "waiting", None)
            if lost is None and waiting is not None and waiting(trials):
                return PAUSE
            place = next_place(trials) if lost is None else place_of(lost)
            trial = _ask(study, setup.context.distributions) if lost is None else create_trial(study, retry_of(lost))
            write_facts(trial, TrialFacts(place=place))
            work = self._runner.begin(study, trial, setup.space.design(trial.params), Phase.SEARCH, f"trial {place}")
            if work is not None:
                return work

    def _record_stages(self) -> None:
        """Keep and tell what the stages have decided, for samplers that have stages."""
        decisions = getattr(self._setup.sampler, "decisions", None)
        if decisions is None:
            return
        study = self._folder.search
        stages = [s.to_dict() for s in decisions(study.get_trials(deepcopy=False)) if s.chosen is not None]
        for stage in stages[self._n_stages :]:
            self._reporter.note(stage_line(stage))
        self._n_stages = max(self._n_stages, len(stages))
        if len(stages) > len(stages_of(study)):
            keep_stages(study, stages)

    def _spent(self) -> int:
        """Trials of the search that are trained, were, or were tried to."""
        return sum(not facts_of(t).infeasible for t in counted(self._folder.search.get_trials(deepcopy=False)))

    def _search_is_over(self) -> bool:
        trials = self._folder.search.get_trials(deepcopy=False)
        exhausted = getattr(self._setup.sampler, "exhausted", None)
        if exhausted is not None and exhausted(trials):
            return True
        if self._spent() >= self._setup.strategy.trials:
            return True
        if len(counted(trials)) >= _TRIES_PER_TRIAL * self._setup.strategy.trials:
            self._reporter.note("The search ends early: too few of the designs that it proposes fit the budget.")
            return True
        return False

    def _next_confirmation(self) -> Work | Pause | None:
        study = self._folder.confirm
        jobs = self._open_confirmations(self.finalists())
        if jobs:
            self._begin_phase(Phase.CONFIRM, len(jobs))
        for finalist, seed in jobs:
            assert finalist.design is not None, "a finalist has its design"
            trial = _create(study, TrialFacts(family=finalist.family if finalist.baseline else None))
            work = self._runner.begin(study, trial, finalist.design, Phase.CONFIRM, finalist.name, seed=seed)
            if work is not None:
                return work
        return self._next_reference() or (PAUSE if _running(study) else None)

    def _next_reference(self) -> Work | None:
        study, jobs = self._folder.confirm, self._open_references()
        if not jobs:
            return None
        self._begin_phase(Phase.REFERENCES, len(jobs))
        return self._runner.begin_reference(study, _create(study, TrialFacts(kind=Kind.REFERENCE)), *jobs[0])

    def _open_confirmations(self, finalists: list[Confirmed]) -> list[tuple[Confirmed, int]]:
        """Trainings that nobody has begun; seed by seed, so that all designs have as many."""
        begun = self._begun()
        return [(f, seed) for seed in self._seeds for f in finalists if (f.name, seed) not in begun]

    def _open_references(self) -> list[tuple[Reference, int]]:
        """Trainings of the references that nobody has begun."""
        begun = self._begun()
        return [(r, seed) for seed in self._seeds for r in self.references if (r.name, seed) not in begun]

    def _begun(self) -> set[tuple[Any, Any]]:
        """Names and seeds of the confirmation's trainings."""
        return {((facts := facts_of(t)).name, facts.seed) for t in not_interrupted(self._folder.confirm)}

    @property
    def _seeds(self) -> range:
        first = self._setup.options.seed + _CONFIRM_SEED
        return range(first, first + self._setup.strategy.confirm.seeds)

    def _begin_phase(self, name: Phase, n_trials: int) -> None:
        if name != self._phase:
            self._phase = name
            self._reporter.phase(name, n_trials)


def require_scores(study: optuna.Study, folder: StudyFolder) -> None:
    """Check that a study has a score, the references' apart.

    Raises:
        AllTrialsFailed: It has none; the message gives the reasons.
    """
    trials = [t for t in not_interrupted(study) if not is_reference(t)]
    scored = [t for t in trials if t.state == TrialState.COMPLETE]
    if any(not facts_of(t).exceeds_limits for t in scored):
        return
    if scored:
        limits = one_line("; ".join(facts_of(min(scored, key=_excess)).violations or ()))
        raise AllTrialsFailed(
            f"no design keeps the limits; the nearest: {limits}; give larger limits, or a smaller --batch-size"
        )
    reasons = sorted({reason for t in trials if (reason := facts_of(t).reason)})
    raise AllTrialsFailed(
        f"all {len(trials)} trials failed: {one_line('; '.join(reasons[:3]))}; they are recorded in "
        f"{folder.path}; a lower --learning-rate or a smaller --batch-size may help"
    )


def _excess(trial: FrozenTrial) -> float:
    """How far a trial is beyond the limits."""
    return sum(max(0.0, value) for value in trial.constraints.values())


def _running(study: optuna.Study) -> bool:
    return bool(study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)))


def _ask(study: optuna.Study, distributions: dict[str, BaseDistribution]) -> optuna.Trial:
    """A trial that the sampler chooses."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Heartbeat of storage")  # `TrialRunner.run` records them
        return study.ask(distributions)


def _create(
    study: optuna.Study,
    facts: TrialFacts,
    params: dict[str, Any] | None = None,
    distributions: dict[str, BaseDistribution] | None = None,
) -> optuna.Trial:
    """A running trial with given parameters, which no sampler chose."""
    template = optuna.create_trial(
        state=TrialState.RUNNING,
        params=params or {},
        distributions=distributions or {},
        user_attrs=facts.attributes(),
    )
    return create_trial(study, template)


def _to_retry(trials: list[FrozenTrial]) -> list[FrozenTrial]:
    """Interrupted trials of the search whose place nobody has taken since, lowest place first."""
    taken = {place_of(t) for t in counted(trials)}
    lost = {place: t for t in trials if is_interrupted(t) and (place := place_of(t)) is not None}
    return [lost[place] for place in sorted(lost) if place not in taken]
