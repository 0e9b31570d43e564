"""The search: baselines, the strategy's trials, confirmation, verdict. Every step is decided from the stored history.

A search that is killed at any moment and started again goes on where it was: completed trials are neither lost nor
repeated, and interrupted ones are run anew with the same design and seed.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import mean
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from peftsearch.architecture import Architecture, Design
from peftsearch.baselines import baselines_of
from peftsearch.engines.local import LocalEngine
from peftsearch.errors import one_line
from peftsearch.progress import Reporter, format_seconds
from peftsearch.samplers import plan_of
from peftsearch.samplers.context import INTERRUPTED, KIND, counted
from peftsearch.setup import Setup
from peftsearch.study import StudyFolder
from peftsearch.trial import TrialRunner

_TRIES_PER_TRIAL = 50
"""Designs that may be proposed for each that fits, before the search gives up."""
_CONFIRM_SEED = 1000
"""Distance of the confirmation's seeds from those of the search, which it must not share."""


class AllTrialsFailed(Exception):
    """Not one trial has a score; the message gives the reasons."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Finalist:
    """A design that is confirmed."""

    name: str
    """Baseline's name, or `trial 17` by its place in the search; interrupted trials do not count."""
    baseline: bool
    design: Design
    architecture: Architecture


class Search:
    """One run of a study, from the baselines to the confirmation.

    Args:
        setup: What to search, and with what.
        folder: Where it is kept; its history is taken up.
        engine: Runs the trainings.
        reporter: Is told of everything.
    """

    def __init__(self, setup: Setup, folder: StudyFolder, engine: LocalEngine, reporter: Reporter) -> None:
        self._setup = setup
        self._folder = folder
        self._engine = engine
        self._reporter = reporter
        self._trials = TrialRunner(setup, folder.path, engine, reporter)
        self._baselines = baselines_of(setup.space, setup.backbone)
        folder.use(setup.sampler, setup.pruner)

    def run(self) -> list[Finalist]:
        """Run what is left of the study.

        Returns:
            The confirmed designs; their scores are in the `confirm` study.

        Raises:
            AllTrialsFailed: No trial has a score.
            StudyError: The storage cannot be used.
        """
        if not self._is_over():
            self._announce()
        try:
            self._run_baselines()
            self._run_search()
            self._require_scores(self._folder.search)
            finalists = self.finalists()
            self._run_confirmation(finalists)
            self._require_scores(self._folder.confirm)
        finally:
            self._reporter.close()
        return finalists

    def _is_over(self) -> bool:
        """Whether nothing is left to train."""
        names = {t.user_attrs.get("baseline") for t in _not_interrupted(self._folder.search) if t.state.is_finished()}
        return (
            all(b.name in names for b in self._baselines)
            and self._search_is_over()
            and not self._open_confirmations(self.finalists())
        )

    def _announce(self) -> None:
        """Measure a few steps, print the plan and the time that it will take."""
        setup, strategy = self._setup, self._setup.strategy
        stages = plan_of(setup.sampler, setup.context)
        n_search = min(strategy.trials, sum(s.n_trials for s in stages))
        n_baselines = min(strategy.confirm.baselines, len(self._baselines))
        those = "baseline" if n_baselines == 1 else f"{n_baselines} baselines"
        n_confirm = (strategy.confirm.best + n_baselines) * strategy.confirm.seeds
        n_steps = (len(self._baselines) + n_search) * strategy.search.steps + n_confirm * strategy.confirm.steps
        fitting = [b.design for b in self._baselines if setup.context.feasible(b.design)]
        design = fitting[0] if fitting else self._baselines[0].design
        step_s, score_s = self._calibrate(design)
        n_scores = (len(self._baselines) + n_search) * strategy.search.evaluations + n_confirm
        done = self._steps_done()
        left_s = (n_steps - done) * step_s + n_scores * score_s * (1 - done / n_steps)
        note = self._reporter.note
        note(
            f"Plan: {len(self._baselines)} baselines, then {n_search} trials of {strategy.search.steps} steps "
            f"({strategy.name}, out of {setup.space.n_designs:,} designs of space {setup.space.name}), then the best "
            f"{strategy.confirm.best} and the best {those} with "
            f"{strategy.confirm.seeds} seeds of {strategy.confirm.steps} steps."
        )
        for s in stages if len(stages) > 1 else ():
            note(f"   {s.name:<14} {s.compared} of {s.n_choices} choices x {s.repeats} = {s.n_trials} trials")
        if len(stages) > 1 and any(s.repeats == 1 for s in stages):
            note("   A choice tried once has no standard error: the stages' decisions are rough at this many trials.")
        note(f"   about {format_seconds(left_s)} ({1000 * step_s:.0f} ms a step, {score_s:.1f} s a validation)")
        self._reporter.start(n_steps - done, left_s / max(1, n_steps - done))

    def _calibrate(self, design: Design) -> tuple[float, float]:
        """Seconds of a step and of a validation; zeros where the measurement fails, as the trials will tell why."""
        try:
            return self._engine.calibrate(self._trials.fit(design))
        except (RuntimeError, MemoryError) as error:
            self._reporter.note(f"The time could not be measured: {one_line(error)}")
            return 0.0, 0.0

    def _steps_done(self) -> int:
        trials = [*self._folder.search.get_trials(deepcopy=False), *self._folder.confirm.get_trials(deepcopy=False)]
        done = sum(t.user_attrs.get("steps", 0) for t in trials if t.state == TrialState.COMPLETE)
        if self._folder.n_interrupted or done:
            self._reporter.note(
                f"Resuming {self._folder.path}: {sum(t.state == TrialState.COMPLETE for t in trials)} trials are done, "
                f"{self._folder.n_interrupted} were interrupted and are run anew."
            )
        return int(done)

    def _run_baselines(self) -> None:
        study = self._folder.search
        known = {t.user_attrs.get("baseline") for t in _not_interrupted(study) if t.state.is_finished()}
        queued = {t.user_attrs.get("baseline") for t in study.get_trials(deepcopy=False, states=(TrialState.WAITING,))}
        left = [b for b in self._baselines if b.name not in known]
        if left:
            self._reporter.phase("baselines", len(left))
        for baseline in left:
            if baseline.name not in queued:
                facts = {KIND: "baseline", "baseline": baseline.name, "design": baseline.design.to_dict()}
                study.enqueue_trial(baseline.params or {}, user_attrs=facts)
            trial = study.ask(self._setup.context.distributions if baseline.params else {})
            self._trials.run(study, trial, baseline.design, "baselines", baseline.name)

    def _run_search(self) -> None:
        study, setup = self._folder.search, self._setup
        self._record_stages()  # a kill may have come between the last trial of a stage and its record
        if self._search_is_over():
            return
        self._reporter.phase("search", setup.strategy.trials - self._spent())
        while not self._search_is_over():
            n_before = len(counted(study.get_trials(deepcopy=False)))
            trial = study.ask(setup.context.distributions)
            self._trials.run(study, trial, setup.space.design(trial.params), "search", f"trial {n_before + 1}")
            self._record_stages()

    def _record_stages(self) -> None:
        """Keep and tell what the stages have decided, for samplers that have stages."""
        decisions = getattr(self._setup.sampler, "decisions", None)
        if decisions is None:
            return
        study = self._folder.search
        stages = [s.to_dict() for s in decisions(study.get_trials(deepcopy=False)) if s.chosen is not None]
        known = study.user_attrs.get("stages", [])
        for stage in stages[len(known) :]:
            self._reporter.note(stage_line(stage))
        if len(stages) > len(known):
            study.set_user_attr("stages", stages)

    def _spent(self) -> int:
        """Trials of the search that were trained or tried to."""
        return sum(not t.user_attrs.get("infeasible") for t in counted(self._folder.search.get_trials(deepcopy=False)))

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

    def finalists(self) -> list[Finalist]:
        """The best baselines, the design that the strategy decided on, and the best of the search, from the history.

        Designs that were trained several times rank by their mean.
        """
        trials = [t for t in _not_interrupted(self._folder.search) if t.state == TrialState.COMPLETE]
        scores: dict[str, list[float]] = {}
        for t in trials:
            scores.setdefault(_design_key(t), []).append(float(t.value or 0.0))
        ranked = sorted(trials, key=lambda t: (-mean(scores[_design_key(t)]), t.number))
        found = [t for t in ranked if t.user_attrs.get(KIND) != "baseline"]
        decided = getattr(self._setup.sampler, "decided_trial", None)
        if decided is not None and (trial := decided(trials)) is not None:
            found.insert(0, trial)
        baselines = [t for t in ranked if t.user_attrs.get(KIND) == "baseline"]
        chosen: list[Finalist] = []
        confirm = self._setup.strategy.confirm
        for group, n_wanted in ((baselines, confirm.baselines), (found, confirm.best)):
            n_before = len(chosen)
            for finalist in map(self._finalist, group):
                taken = {(f.architecture, f.design.learning_rate) for f in chosen}
                if (finalist.architecture, finalist.design.learning_rate) not in taken:
                    chosen.append(finalist)
                if len(chosen) - n_before == n_wanted:
                    break
        return chosen

    def _finalist(self, trial: FrozenTrial) -> Finalist:
        design = Design.from_dict(trial.user_attrs["design"])
        return Finalist(
            name=trial.user_attrs["name"],
            baseline=trial.user_attrs.get(KIND) == "baseline",
            design=design,
            architecture=self._trials.fit(design),
        )

    def _run_confirmation(self, finalists: list[Finalist]) -> None:
        jobs = self._open_confirmations(finalists)
        if jobs:
            self._reporter.phase("confirm", len(jobs))
        for finalist, seed in jobs:
            trial = self._folder.confirm.ask()
            self._trials.run(self._folder.confirm, trial, finalist.design, "confirm", finalist.name, seed=seed)

    def _open_confirmations(self, finalists: list[Finalist]) -> list[tuple[Finalist, int]]:
        """Trainings that are not done; seed by seed, so that all designs have as many."""
        done = {(t.user_attrs.get("name"), t.user_attrs.get("seed")) for t in _not_interrupted(self._folder.confirm)}
        first = self._setup.options.seed + _CONFIRM_SEED
        seeds = range(first, first + self._setup.strategy.confirm.seeds)
        return [(f, seed) for seed in seeds for f in finalists if (f.name, seed) not in done]

    def _require_scores(self, study: optuna.Study) -> None:
        trials = _not_interrupted(study)
        if any(t.state == TrialState.COMPLETE for t in trials):
            return
        reasons = sorted({str(t.user_attrs.get("reason")) for t in trials if t.user_attrs.get("reason")})
        raise AllTrialsFailed(
            f"all {len(trials)} trials failed: {one_line('; '.join(reasons[:3]))}; they are recorded in "
            f"{self._folder.path}; a lower --learning-rate or a smaller --batch-size may help"
        )


def stage_line(stage: dict[str, Any]) -> str:
    """A closed stage in one line."""
    tried = [c for c in stage["choices"] if c["n"]]
    scores = ", ".join(
        f"{c['choice']} {c['mean']:.4f}" + (f" ± {c['standard_error']:.4f}" if c["standard_error"] is not None else "")
        for c in sorted(tried, key=lambda c: -c["mean"])
    )
    if not tried:
        return f"{stage['stage']}: {stage['why']}"
    n = f" (n={max(c['n'] for c in tried)} each: {scores})"
    return f"{stage['stage']}: {stage['chosen']}, {stage['why']}{n}"


def _not_interrupted(study: optuna.Study) -> list[FrozenTrial]:
    return [t for t in study.get_trials(deepcopy=False) if not t.user_attrs.get(INTERRUPTED)]


def _design_key(trial: FrozenTrial) -> str:
    return Design.from_dict(trial.user_attrs["design"]).key
