"""One trial: fit a design, train it, score it, record it. Whatever happens to it never ends the search."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import mean
from typing import Any

import optuna
import torch
from optuna.storages._heartbeat import get_heartbeat_thread
from optuna.trial import FrozenTrial, TrialState

from peftsearch.design.architecture import Architecture
from peftsearch.design.design import Design
from peftsearch.design.fitting import fit
from peftsearch.design.references import FULL_LEARNING_RATE, Reference
from peftsearch.design.text import design_line
from peftsearch.engine.job import Job, Outcome
from peftsearch.engine.local import LocalEngine
from peftsearch.errors import BudgetError, MethodError, StudyError, one_line
from peftsearch.files import write_state
from peftsearch.searcher.prepare import Setup
from peftsearch.searcher.progress import Reporter, TrialLine
from peftsearch.searcher.verdict import packed_hits
from peftsearch.study.claims import OWNER, release
from peftsearch.study.folder import StudyFolder, state_paths
from peftsearch.study.objectives import values_of
from peftsearch.study.trials import CONSTRAINTS, REPLICATE, STAGE, score_of

_COPIED = ("score", "task_scores", "n_head", "loss", "measures", CONSTRAINTS, "violations")
"""What a trial takes over from an equal one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """A trial that this process has claimed and that is to be trained."""

    study: optuna.Study
    trial: optuna.Trial
    phase: str
    """`baselines`, `search`, `confirm` or `references`."""
    name: str
    job: Job
    line: dict[str, str]
    """What the display shows of it."""

    @property
    def prunable(self) -> bool:
        """Whether the pruner may stop it."""
        return self.phase == "search" and len(self.study.directions) == 1


class TrialRunner:
    """Begins, runs and records the trials of a study.

    Args:
        setup: What is searched, and with what.
        folder: The study; trained parameters of the confirmation go into its folder.
        reporter: Is told of every trial.
    """

    def __init__(self, setup: Setup, folder: StudyFolder, reporter: Reporter) -> None:
        self.setup = setup
        self.folder = folder
        self._reporter = reporter

    def begin(
        self, study: optuna.Study, trial: optuna.Trial, design: Design, phase: str, name: str, seed: int | None = None
    ) -> Work | None:
        """Claim a trial, fit its design and write down what is known of it.

        Returns:
            What is to be trained; None when the trial is over already: it does not fit, or was trained before.
        """
        setup, confirm = self.setup, phase == "confirm"
        _live(study, trial)
        fidelity: Any = setup.strategy.confirm if confirm else setup.strategy.search
        system = study._storage.get_trial_system_attrs(trial._trial_id)
        if seed is None:
            seed = setup.options.seed + int(system.get(REPLICATE, 0))
        facts = {"name": name, "design": design.to_dict(), "steps": fidelity.steps, "seed": seed}
        facts[OWNER] = self.folder.owner
        line = {"phase": phase, "stage": str(system.get(STAGE, "")), "name": name, "detail": design_line(design)}
        try:
            architecture = self.fit(design)
            if phase == "search" and not architecture.placements:
                raise BudgetError("the design tunes no group")
            if setup.memory is not None and (obstacle := setup.memory.obstacle(architecture.n_params)):
                raise BudgetError(obstacle)
        except (BudgetError, MethodError) as error:  # a size that a space fixes may be wider than a block
            _finish(study, trial, TrialState.PRUNED, {**facts, "infeasible": True, "reason": one_line(error)})
            if phase == "baselines":
                shown = TrialLine(**{**line, "detail": str(error)}, state="does not fit", score=None, n_params=None)
                self._reporter.trial(shown, fidelity.steps)
            return None
        job = Job(
            architecture=architecture,
            learning_rate=design.learning_rate or setup.training.learning_rate,
            steps=fidelity.steps,
            evaluations=1 if confirm or phase == "baselines" else fidelity.evaluations,
            seed=seed,
            keep_state=confirm,
        )
        facts |= {"n_params": architecture.n_params, "learning_rate": job.learning_rate}
        facts["share"] = architecture.n_params / setup.budget.n_params
        _write(trial, facts)
        work = Work(study=study, trial=trial, phase=phase, name=name, job=job, line=line)
        known = None if confirm else self._known(study, job)
        if known is None:
            return work
        _finish(study, trial, TrialState.COMPLETE, {"reused_from": known.number, **_copied(known)}, known.values)
        self._show(work, "reused", score_of(known))
        return None

    def begin_reference(self, study: optuna.Study, trial: optuna.Trial, reference: Reference, seed: int) -> Work:
        """Claim a training of a reference, with the confirmation's settings, and write down what is known of it."""
        _live(study, trial)
        job = Job(
            architecture=reference,
            learning_rate=FULL_LEARNING_RATE,
            steps=self.setup.strategy.confirm.steps,
            seed=seed,
            test=True,
        )
        facts = {"name": reference.name, "steps": job.steps, "seed": seed, "n_params": reference.n_params}
        _write(trial, {**facts, "learning_rate": job.learning_rate, OWNER: self.folder.owner})
        line = {"phase": "references", "stage": "", "name": reference.name, "detail": reference.detail}
        return Work(study=study, trial=trial, phase="references", name=reference.name, job=job, line=line)

    def run(self, work: Work, engine: LocalEngine) -> None:
        """Train a trial in this process and record how it ended; it never ends the search, whatever happens to it."""
        try:
            with get_heartbeat_thread(work.trial._trial_id, work.study._storage):
                outcome = engine.run(work.job, _pruning(work.trial) if work.prunable else None)
            self.complete(work, outcome)
        except optuna.TrialPruned as error:
            self.prune(work, one_line(error))
        except optuna.exceptions.UpdateFinishedTrialError:
            self._is_taken(work)
        except (StudyError, OSError, optuna.exceptions.OptunaError):
            raise  # the study itself cannot go on
        except KeyboardInterrupt:
            self.lose(work, "stopped by the user", by_user=True)
            raise
        except Exception as error:  # any other fault is this trial's own: it is recorded and the search goes on
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            self.fail(work, f"{type(error).__name__}: {one_line(error)}")

    def complete(self, work: Work, outcome: Outcome) -> None:
        """Record a trained trial, its parameters before its score."""
        facts = _measured(outcome)
        if work.phase != "references":  # which stand outside the limits as outside the budget
            facts |= self._held_to(outcome.measures)
        values = [outcome.score]
        tasks = self.setup.suite.tasks
        if len(tasks) > 1:
            facts["task_scores"] = {t.name: score for t, score in zip(tasks, outcome.task_scores, strict=True)}
        if outcome.states:
            paths = state_paths(self.folder.path, work.name, work.job.seed, len(tasks))
            for state, path in zip(outcome.states, paths, strict=True):
                write_state(state, path)
            facts["right"] = packed_hits(outcome.right)
        if len(outcome.test_scores) == len(tasks):
            facts["test_score"] = mean(outcome.test_scores)
        if work.study is self.folder.search:
            values = values_of(outcome.score, outcome.measures, self.setup.objectives)
        if self._end(work, TrialState.COMPLETE, facts, values):
            self._show(work, "complete", outcome.score)

    def prune(self, work: Work, reason: str) -> None:
        """Record a trial that the pruner stopped."""
        if self._end(work, TrialState.PRUNED, {"reason": reason}):
            self._show(work, "pruned")

    def fail(self, work: Work, reason: str) -> None:
        """Record a trial that failed by its own fault."""
        if self._end(work, TrialState.FAIL, {"reason": reason}):
            self._show(work, "failed", detail=reason)

    def lose(self, work: Work, reason: str, by_user: bool = False) -> None:
        """Record a trial whose process ended, or which the user stopped; it is run anew, within a limit."""
        with self.folder.claim():
            stored = _stored(work)
            if stored.state.is_finished():
                return  # recorded already, here or by who took it for lost
            again = release(work.study, stored, reason, by_user)
        if not by_user:
            self._show(work, "lost" if again else "failed", detail=reason)

    def fit(self, design: Design) -> Architecture:
        """The architecture that a design becomes under the study's budget."""
        return fit(design, self.setup.backbone, self.setup.budget)

    def _held_to(self, measures: Mapping[str, float]) -> dict[str, Any]:
        """Which limits a trial's measures exceed, in words and as the samplers want it; nothing without limits."""
        limits = self.setup.constraints
        if not limits.to_dict():
            return {}
        violations = limits.violations(measures)
        return {CONSTRAINTS: limits.values(measures)} | ({"violations": violations} if violations else {})

    def _end(self, work: Work, state: TrialState, facts: dict[str, Any], values: list[float] | None = None) -> bool:
        """Record how a trial ended; False when others have taken it for lost since, so that its place is theirs."""
        try:
            _finish(work.study, work.trial, state, facts, values)
        except optuna.exceptions.UpdateFinishedTrialError:
            self._is_taken(work)
            return False
        return True

    def _is_taken(self, work: Work) -> None:
        self._show(work, "lost", detail="gave no sign of life for too long; another process runs it anew")

    def _show(self, work: Work, state: str, score: float | None = None, detail: str | None = None) -> None:
        line = work.line if detail is None else {**work.line, "detail": detail}
        shown = TrialLine(**line, state=state, score=score, n_params=work.job.architecture.n_params)
        self._reporter.trial(shown, 0 if state == "lost" else work.job.steps)

    def _known(self, study: optuna.Study, job: Job) -> FrozenTrial | None:
        """An equal training of this study; none is trained twice."""
        wanted = [job.architecture.n_params, job.learning_rate, job.steps, job.seed]
        for t in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
            same = [t.user_attrs.get(key) for key in ("n_params", "learning_rate", "steps", "seed")] == wanted
            if same and self.fit(Design.from_dict(t.user_attrs["design"])) == job.architecture:
                return t
        return None


def _live(study: optuna.Study, trial: optuna.Trial) -> None:
    """Give the first sign of life: without any, other hosts would wait for a dead owner for ever."""
    study._storage.record_heartbeat(trial._trial_id)  # type: ignore[attr-defined]  # RDBStorage has it


def _stored(work: Work) -> FrozenTrial:
    return work.study._storage.get_trial(work.trial._trial_id)


def _write(trial: optuna.Trial, facts: dict[str, Any]) -> None:
    for key, fact in facts.items():
        trial.set_user_attr(key, fact)


def _finish(
    study: optuna.Study,
    trial: optuna.Trial,
    state: TrialState,
    facts: dict[str, Any],
    values: list[float] | None = None,
) -> None:
    """Write the facts, then the state: a trial with a state has all its facts."""
    _write(trial, facts)
    study.tell(trial, values, state=state)


def _pruning(trial: optuna.Trial) -> Callable[[int, float], None]:
    def report(step: int, score: float) -> None:
        reason = pruned_at(trial, step, score)
        if reason is not None:
            raise optuna.TrialPruned(reason)

    return report


def pruned_at(trial: optuna.Trial, step: int, score: float) -> str | None:
    """Report an intermediate score; says why the pruner stops the trial, or None."""
    trial.report(score, step)
    return f"stopped by the pruner at step {step} with score {score:.4f}" if trial.should_prune() else None


def _copied(known: FrozenTrial) -> dict[str, Any]:
    """What a trial takes over from an equal one."""
    return {key: known.user_attrs[key] for key in _COPIED if key in known.user_attrs}


def _measured(outcome: Outcome) -> dict[str, Any]:
    return {
        "score": outcome.score,
        "n_head": outcome.n_head,
        "loss": outcome.loss,
        "train_s": round(outcome.train_s, 3),
        "wall_s": round(outcome.wall_s, 3),
        "measures": outcome.measures,
    }
