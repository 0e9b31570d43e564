"""One trial: fit a design, train it, score it, record it. Whatever happens to it never ends the search."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.trial import TrialState

from peftsearch.architecture import Architecture, Design
from peftsearch.display import design_line
from peftsearch.engines.job import Job, Outcome
from peftsearch.engines.local import LocalEngine
from peftsearch.errors import BudgetError, StudyError, one_line
from peftsearch.fitting import fit
from peftsearch.progress import Reporter, TrialLine
from peftsearch.samplers.context import REPLICATE, STAGE
from peftsearch.setup import Setup
from peftsearch.study import state_path


class TrialRunner:
    """Runs trials of a study.

    Args:
        setup: What is searched, and with what.
        path: Folder of the study; trained parameters of the confirmation go below it.
        engine: Runs the trainings.
        reporter: Is told of every trial.
    """

    def __init__(self, setup: Setup, path: Path, engine: LocalEngine, reporter: Reporter) -> None:
        self._setup = setup
        self._path = path
        self._engine = engine
        self._reporter = reporter

    def run(
        self, study: optuna.Study, trial: optuna.Trial, design: Design, phase: str, name: str, seed: int | None = None
    ) -> None:
        """Fit, train, score and record one design; whatever happens to it is recorded and never ends the search."""
        setup, confirm = self._setup, phase == "confirm"
        fidelity: Any = setup.strategy.confirm if confirm else setup.strategy.search
        system = study._storage.get_trial_system_attrs(trial._trial_id)
        if seed is None:
            seed = setup.options.seed + int(system.get(REPLICATE, 0))
        facts = {"name": name, "design": design.to_dict(), "steps": fidelity.steps, "seed": seed}
        line = {"phase": phase, "stage": str(system.get(STAGE, "")), "name": name, "detail": design_line(design)}
        try:
            architecture = self.fit(design)
            if phase == "search" and not architecture.placements:
                raise BudgetError("the design tunes no group")
        except BudgetError as error:
            _finish(study, trial, TrialState.PRUNED, {**facts, "infeasible": True, "reason": one_line(error)})
            if phase == "baselines":
                shown = TrialLine(**{**line, "detail": str(error)}, state="does not fit", score=None, n_params=None)
                self._reporter.trial(shown, fidelity.steps)
            return
        job = Job(
            architecture=architecture,
            learning_rate=design.learning_rate or setup.training.learning_rate,
            steps=fidelity.steps,
            evaluations=1 if confirm or phase == "baselines" else fidelity.evaluations,
            seed=seed,
            save_to=state_path(self._path, name, seed) if confirm else None,
        )
        facts |= {"n_params": architecture.n_params, "learning_rate": job.learning_rate}
        facts["share"] = architecture.n_params / setup.budget.n_params
        state, score = self._train(study, trial, job, facts, prunable=phase == "search")
        if state == "failed":
            line["detail"] = facts["reason"]
        self._reporter.trial(
            TrialLine(**line, state=state, score=score, n_params=architecture.n_params), fidelity.steps
        )

    def _train(
        self, study: optuna.Study, trial: optuna.Trial, job: Job, facts: dict[str, Any], prunable: bool
    ) -> tuple[str, float | None]:
        """Run a job and record how it ended; returns the state to show, and the score."""
        known = self._known_score(study, job, facts)
        if known is not None:
            facts["reused_from"], score, measures = known
            facts |= {"score": score, "measures": measures}
            _finish(study, trial, TrialState.COMPLETE, facts, score)
            return "reused", score
        try:
            outcome = self._engine.run(job, _pruning(trial) if prunable else None)
        except optuna.TrialPruned as error:
            _finish(study, trial, TrialState.PRUNED, {**facts, "reason": one_line(error)})
            return "pruned", None
        except (StudyError, OSError, optuna.exceptions.OptunaError):
            raise  # the study itself cannot go on
        except Exception as error:  # any other fault is this trial's own: it is recorded and the search goes on
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            facts["reason"] = f"{type(error).__name__}: {one_line(error)}"
            _finish(study, trial, TrialState.FAIL, facts)
            return "failed", None
        if job.save_to is not None:
            facts["right"] = "".join("01"[hit] for hit in outcome.right)
        _finish(study, trial, TrialState.COMPLETE, facts | _measured(outcome), outcome.score)
        return "complete", outcome.score

    def _known_score(
        self, study: optuna.Study, job: Job, facts: dict[str, Any]
    ) -> tuple[int, float, dict[str, float]] | None:
        """Number, score and measures of an equal training of this study; none is trained twice."""
        if job.save_to is not None:
            return None
        wanted = [facts[key] for key in ("n_params", "learning_rate", "steps", "seed")]
        for t in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
            same = [t.user_attrs.get(key) for key in ("n_params", "learning_rate", "steps", "seed")] == wanted
            if same and self.fit(Design.from_dict(t.user_attrs["design"])) == job.architecture:
                return t.number, float(t.value or 0.0), t.user_attrs.get("measures", {})
        return None

    def fit(self, design: Design) -> Architecture:
        """The architecture that a design becomes under the study's budget."""
        return fit(design, self._setup.backbone, self._setup.budget)


def _finish(
    study: optuna.Study, trial: optuna.Trial, state: TrialState, facts: dict[str, Any], value: float | None = None
) -> None:
    """Write the facts, then the state: a trial with a state has all its facts."""
    for key, fact in facts.items():
        trial.set_user_attr(key, fact)
    study.tell(trial, value, state=state)


def _pruning(trial: optuna.Trial) -> Callable[[int, float], None]:
    def report(step: int, score: float) -> None:
        trial.report(score, step)
        if trial.should_prune():
            raise optuna.TrialPruned(f"stopped by the pruner at step {step} with score {score:.4f}")

    return report


def _measured(outcome: Outcome) -> dict[str, Any]:
    return {
        "n_head": outcome.n_head,
        "loss": outcome.loss,
        "train_s": round(outcome.train_s, 3),
        "wall_s": round(outcome.wall_s, 3),
        "score": outcome.score,
        "measures": outcome.measures,
    }
