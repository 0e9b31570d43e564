"""Run one trial: fit a design, train it, score it, record it; a failed trial never ends the search."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import mean

import optuna
import torch
from optuna.trial import FrozenTrial, TrialState

from peftsearch.design.architecture import Architecture
from peftsearch.design.design import Design
from peftsearch.design.fitting import fit
from peftsearch.design.references import FULL_LEARNING_RATE, Reference
from peftsearch.design.text import design_line
from peftsearch.engine.job import Job, Outcome
from peftsearch.engine.local import LocalEngine
from peftsearch.errors import BudgetError, MethodError, StudyError, internal_error, is_defect, one_line
from peftsearch.exporter.formats import deploys
from peftsearch.files import write_state
from peftsearch.searcher.others import Others
from peftsearch.searcher.prepare import Setup
from peftsearch.searcher.progress import Ending, Reporter, TrialLine
from peftsearch.searcher.slow import SlowSteps
from peftsearch.searcher.work import Work
from peftsearch.study.claims import release
from peftsearch.study.folder import StudyFolder, paused_paths, state_paths
from peftsearch.study.hits import packed_hits
from peftsearch.study.objectives import values_of
from peftsearch.study.private_optuna import heartbeat, record_heartbeat, stored_trial
from peftsearch.study.trials import (
    CARRIED_OVER,
    Phase,
    TrialFacts,
    facts_of,
    replicate_of,
    stage_of,
    write_facts,
)

FIRST_CONFIRM_SEED = 1000
"""Offset of the confirmation's seeds, which must differ from those of the search."""


class TrialRunner:
    """Begin, run and record the trials of a study.

    Args:
        setup: The validated setup.
        folder: The study; its folder receives the trained parameters of the confirmation.
        reporter: Receiver of every finished trial.
    """

    def __init__(self, setup: Setup, folder: StudyFolder, reporter: Reporter) -> None:
        self.setup = setup
        self.folder = folder
        self.reporter = reporter
        self.others = Others(folder, reporter)
        self.slow = SlowSteps(reporter.note)
        """Tells steps that take longer than was measured before the first trial."""

    def begin(
        self,
        study: optuna.Study,
        trial: optuna.Trial,
        design: Design,
        phase: Phase,
        name: str,
        seed: int | None = None,
        rung: int = 0,
    ) -> Work | None:
        """Claim a trial, fit its design and record its facts.

        Args:
            study: The study of the trial.
            trial: The trial, which is running.
            design: The design to train.
            phase: The phase of the search.
            name: Name of the design.
            seed: Seed of the training; None is that of the search.
            rung: The rung to train up to, outside the confirmation.

        Returns:
            The work to train; None if the trial has already ended, because it does not fit or was trained before.
        """
        setup, confirm = self.setup, phase == Phase.CONFIRM
        record_heartbeat(study, trial)  # without one, other hosts would wait forever for a dead owner
        asked = stored_trial(study, trial)  # the sampler's notes are in the storage, not in `trial`
        if seed is None:
            seed = setup.options.seed + replicate_of(asked)
        end = setup.lengths.confirm if confirm else setup.lengths.rungs[rung]
        facts = TrialFacts(
            name=name,
            design=design.to_dict(),
            steps=end,
            rung=None if confirm else rung,
            seed=seed,
            owner=self.folder.owner,
        )
        line = TrialLine(phase=phase, stage=stage_of(asked), name=name, detail=design_line(design))
        try:
            architecture = self.fit(design)
            if phase == Phase.SEARCH and not architecture.placements:
                raise BudgetError("the design tunes no group")
            deploy = setup.options.search.deploy
            if not deploys(deploy, architecture):
                raise BudgetError(f"the design cannot be deployed as --deploy {deploy} wants")
            if setup.memory is not None and (obstacle := setup.memory.obstacle(architecture.n_params)):
                raise BudgetError(obstacle)
        except (BudgetError, MethodError) as error:  # for example, a size fixed by the space is wider than a block
            # PRUNED, not FAIL: no training went wrong, the design just cannot be trained.
            _finish(study, trial, TrialState.PRUNED, replace(facts, infeasible=True, reason=one_line(error)))
            if phase == Phase.BASELINES:
                self.reporter.trial(replace(line, detail=str(error), state="does not fit"), end)
            return None
        job = self._job(architecture, design, seed, phase, end, rung)
        share = architecture.n_params / setup.budget.n_params
        first = setup.lengths.start_of(rung) if job.paused else None
        facts = replace(facts, steps=job.end, first=first, n_params=architecture.n_params, share=share)
        write_facts(trial, replace(facts, learning_rate=job.learning_rate))
        line = replace(line, n_params=architecture.n_params)
        work = Work(study=study, trial=trial, phase=phase, name=name, job=job, line=line)
        # Confirmations are always trained, because their parameters must be saved.
        known = None if confirm else self._known(study, job)
        if known is None:
            return work
        for limit, value in known.constraints.items():
            trial.set_constraint(limit, value)
        copied = {name: value for name, value in facts_of(known).attributes().items() if name in CARRIED_OVER}
        _finish(study, trial, TrialState.COMPLETE, TrialFacts(reused_from=known.number, **copied), known.values)
        same = facts_of(known)
        self._show(work, "reused", same.score, same.loss, same.value)
        return None

    def _job(self, architecture: Architecture, design: Design, seed: int, phase: Phase, end: int, rung: int) -> Job:
        """The job of a trial; of a paused training whose snapshots are here, the part that is left."""
        setup, lengths = self.setup, self.setup.lengths
        # The probed head is trained already: on its own, nothing is left to train.
        if not architecture.placements and setup.backbone.head and setup.training.head == "probe":
            confirm = phase == Phase.CONFIRM
            return Job(
                architecture=architecture,
                learning_rate=setup.training.learning_rate,
                steps=0,
                seed=seed,
                keep_state=confirm,
                test=confirm,
                n_validation=None if confirm else lengths.n_validation(lengths.rungs[0]),
                select=setup.select,
            )
        whole = lengths.confirm if phase == Phase.CONFIRM else lengths.steps
        job = Job(
            architecture=architecture,
            learning_rate=design.learning_rate or setup.training.learning_rate,
            steps=whole,
            until=None if end == whole else end,
            snapshot=rung + 1 < len(lengths.rungs),  # nothing goes on from the last one
            evaluations=setup.strategy.search.evaluations if phase == Phase.SEARCH else 1,
            n_validation=None if phase == Phase.CONFIRM else lengths.n_validation(end - lengths.start_of(rung)),
            seed=seed,
            keep_state=phase == Phase.CONFIRM,
            measure=phase in (Phase.BASELINES, Phase.SEARCH),  # what a design costs is measured once
            test=phase == Phase.CONFIRM,
            retry=phase == Phase.CONFIRM,
            select=setup.select,
        )
        return replace(job, paused=self._paused(job, lengths.start_of(rung))) if rung > 0 else job

    def _paused(self, job: Job, step: int) -> tuple[bytes, ...]:
        """Snapshots of a training that paused at a step; empty if they are not here, and the training starts over."""
        paths = self._paused_paths(job, step)
        return tuple(path.read_bytes() for path in paths) if all(path.exists() for path in paths) else ()

    def _paused_paths(self, job: Job, step: int) -> list[Path]:
        assert isinstance(job.architecture, Architecture), "references do not pause"
        parts = json.dumps([job.architecture.to_dict(), job.learning_rate, job.seed], sort_keys=True)
        key = hashlib.sha256(parts.encode()).hexdigest()[:16]
        return paused_paths(self.folder.path, key, step, len(self.setup.suite.tasks))

    def begin_reference(self, study: optuna.Study, trial: optuna.Trial, reference: Reference, seed: int) -> Work:
        """Claim a training of a reference, with the confirmation's settings, and record its facts."""
        record_heartbeat(study, trial)
        job = Job(
            architecture=reference,
            learning_rate=FULL_LEARNING_RATE,
            steps=self.setup.lengths.confirm,
            seed=seed,
            test=True,
            retry=True,
            select=self.setup.select,
        )
        facts = TrialFacts(
            name=reference.name,
            steps=job.steps,
            seed=seed,
            n_params=reference.n_params,
            learning_rate=job.learning_rate,
            owner=self.folder.owner,
        )
        write_facts(trial, facts)
        line = TrialLine(
            phase=Phase.REFERENCES, name=reference.name, detail=reference.detail, n_params=reference.n_params
        )
        return Work(study=study, trial=trial, phase=Phase.REFERENCES, name=reference.name, job=job, line=line)

    def run(self, work: Work, engine: LocalEngine) -> None:
        """Train a trial in this process and record its end; a fault of the trial does not end the search."""
        try:
            with heartbeat(work.study, work.trial):
                outcome = engine.run(work.job, _pruning(work.trial) if work.prunable else None)
            self.complete(work, outcome)
        except optuna.TrialPruned as error:
            self.prune(work, one_line(error))
        except optuna.exceptions.UpdateFinishedTrialError:
            self._is_taken(work)
        except (StudyError, OSError, optuna.exceptions.OptunaError):
            raise  # a fault of the study or the disk, which would hit every other trial too
        except KeyboardInterrupt:
            self.lose(work, "stopped by the user", by_user=True)
            raise
        except Exception as error:  # any other fault is this trial's own: it is recorded and the search goes on
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            settle(self, work, error)

    def complete(self, work: Work, outcome: Outcome) -> None:
        """Record a trained trial, and its parameters before its score."""
        tasks = self.setup.suite.tasks
        if work.phase != Phase.REFERENCES:
            self.slow.look(work.name, outcome.train_s, work.n_steps * len(tasks))
        if outcome.states:
            paths = state_paths(self.folder.path, work.name, work.job.seed, len(tasks))
            # Parameters first: a kill in between leaves the trial to be rerun, never a score without parameters.
            for state, path in zip(outcome.states, paths, strict=True):
                write_state(state, path)
        if outcome.paused:
            for snapshot, path in zip(outcome.paused, self._paused_paths(work.job, work.job.end), strict=True):
                write_state(snapshot, path)
        by_task = None
        if len(tasks) > 1 and outcome.score is not None:
            by_task = {t.name: s for t, s in zip(tasks, outcome.task_scores, strict=True) if s is not None}
        scores = [test.score for test in outcome.tests if test.score is not None]
        measures = self._measures(work, outcome)
        # References are outside the limits, as they are outside the budget.
        held = work.phase != Phase.REFERENCES and bool(measures)
        facts = TrialFacts(
            value=outcome.value,
            score=outcome.score,
            loss=outcome.loss,
            task_scores=by_task,
            test_score=mean(scores) if len(scores) == len(tasks) else None,
            test_loss=mean(test.loss for test in outcome.tests) if len(outcome.tests) == len(tasks) else None,
            test_right=packed_hits([test.right for test in outcome.tests]) if outcome.tests else None,
            test_losses=packed_hits([test.losses for test in outcome.tests]) if outcome.tests else None,
            collapsed=outcome.n_collapsed or None,
            right=packed_hits(outcome.right) if outcome.states else None,
            n_head=outcome.n_head,
            train_loss=outcome.train_loss,
            train_s=round(outcome.train_s, 3),
            wall_s=round(outcome.wall_s, 3),
            measures=measures,
            violations=(self.setup.constraints.violations(measures) or None) if held else None,
        )
        for limit, value in self.setup.constraints.values(measures).items() if held else ():
            work.trial.set_constraint(limit, value)
        if work.study is self.folder.search:
            values = values_of(outcome.value, measures, self.setup.objectives)
        else:  # the confirmation has the score as its only objective
            values = [-outcome.loss if outcome.score is None else outcome.score]
        if self._end(work, TrialState.COMPLETE, facts, values):
            ranked = outcome.value if work.study is self.folder.search else None  # the metric decides the confirmation
            self._show(work, "complete", outcome.score, outcome.loss, ranked)

    def _measures(self, work: Work, outcome: Outcome) -> dict[str, float]:
        """Costs of the architecture, measured in this training or in the first one of the same design."""
        if outcome.measures or work.phase == Phase.REFERENCES:
            return outcome.measures
        name = work.trial.user_attrs.get("arm") or work.name
        known = (facts_of(t) for t in self.folder.search.get_trials(deepcopy=False))
        return next((dict(f.measures) for f in known if f.measures and f.name == name), {})

    def prune(self, work: Work, reason: str) -> None:
        """Record a trial that the pruner stopped."""
        if self._end(work, TrialState.PRUNED, TrialFacts(reason=reason)):
            self._show(work, "pruned")

    def fail(self, work: Work, reason: str) -> None:
        """Record a trial that failed through its own fault."""
        if self._end(work, TrialState.FAIL, TrialFacts(reason=reason)):
            self._show(work, "failed", detail=reason)

    def lose(self, work: Work, reason: str, by_user: bool = False) -> None:
        """Record a trial whose process ended or which the user stopped; it is rerun, within a limit."""
        with self.folder.claim():
            stored = stored_trial(work.study, work.trial)
            if stored.state.is_finished():
                return  # already recorded, here or by a process that declared it lost
            again = release(work.study, stored, reason, by_user)
        if not by_user:
            self._show(work, "lost" if again else "failed", detail=reason)

    def fit(self, design: Design) -> Architecture:
        """Fit a design to the study's backbone and budget."""
        return fit(design, self.setup.backbone, self.setup.budget)

    def _end(self, work: Work, state: TrialState, facts: TrialFacts, values: list[float] | None = None) -> bool:
        """Record the end of a trial; False if another process has declared it lost and taken over its place."""
        try:
            _finish(work.study, work.trial, state, facts, values)
        except optuna.exceptions.UpdateFinishedTrialError:
            self._is_taken(work)
            return False
        return True

    def _is_taken(self, work: Work) -> None:
        self._show(work, "lost", detail="no heartbeat for too long; another process reruns it")

    def _show(
        self,
        work: Work,
        state: Ending,
        score: float | None = None,
        loss: float | None = None,
        value: float | None = None,
        detail: str | None = None,
    ) -> None:
        own = work.line.detail if detail is None else detail
        line = replace(work.line, state=state, score=score, loss=loss, value=value, detail=own)
        # A lost trial is rerun, so its steps are still to be done.
        n_steps = self.setup.lengths.n_steps(work.job.end, goes_on=bool(work.job.paused))
        self.reporter.trial(line, 0 if state == "lost" else n_steps)

    def _known(self, study: optuna.Study, job: Job) -> FrozenTrial | None:
        """Find a completed training of the study that is equal to a job, so that none is trained twice."""
        wanted = (job.architecture.n_params, job.learning_rate, job.end, job.seed)
        for t in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
            facts = facts_of(t)
            # The cheap comparison first: fitting every earlier design of a long study would take long.
            same = (facts.n_params, facts.learning_rate, facts.steps, facts.seed) == wanted
            if same and facts.design and self.fit(Design.from_dict(facts.design)) == job.architecture:
                return t
        return None


def settle(runner: TrialRunner, work: Work, error: Exception) -> None:
    """Record a trial that an error ended, which is not one of the study or the disk.

    Raises:
        InternalError: It is a defect of this project, which would hit every other trial too.
    """
    reason = f"{type(error).__name__}: {one_line(error)}"
    if is_defect(error):
        # `by_user`, so that the defect does not count as a loss and the trial is rerun once it is fixed.
        runner.lose(work, reason, by_user=True)
        raise internal_error(error, resumes=True) from error
    runner.fail(work, reason)


def _finish(
    study: optuna.Study,
    trial: optuna.Trial,
    state: TrialState,
    facts: TrialFacts,
    values: list[float] | None = None,
) -> None:
    """Write the facts before the state, so that a finished trial has all its facts."""
    write_facts(trial, facts)
    study.tell(trial, values, state=state)


def _pruning(trial: optuna.Trial) -> Callable[[int, float], None]:
    def report(step: int, score: float) -> None:
        reason = pruned_at(trial, step, score)
        if reason is not None:
            raise optuna.TrialPruned(reason)

    return report


def pruned_at(trial: optuna.Trial, step: int, score: float) -> str | None:
    """Report an intermediate score; returns why the pruner stops the trial, or None if it goes on."""
    trial.report(score, step)
    return f"stopped by the pruner at step {step} with score {score:.4f}" if trial.should_prune() else None
