"""The search: baselines, the strategy's trials, confirmation. Every step is decided from the stored history.

A search that is killed at any moment and started again goes on where it was: completed trials are neither lost nor
repeated, and interrupted ones are run anew with the same design and seed.
"""

from __future__ import annotations

import time
from typing import Protocol

from optuna.trial import TrialState

from peftsearch.design.design import Design
from peftsearch.engine.local import LocalEngine
from peftsearch.errors import one_line
from peftsearch.finalists import Finalist, n_of_front
from peftsearch.progress import Reporter
from peftsearch.samplers import plan_of
from peftsearch.schedule import Pause, Schedule
from peftsearch.setup import Setup
from peftsearch.study.folder import StudyFolder
from peftsearch.trial import TrialRunner
from peftsearch.units import format_seconds

_PAUSE_S = 0.5
"""Seconds between two looks for work while other processes' trials have to end first."""


class Driver(Protocol):
    """Runs a schedule to its end: trials one after the other here, or many at a time elsewhere."""

    width: int
    """Trials at a time."""

    def drive(self, schedule: Schedule, runner: TrialRunner) -> None:
        """Claim, train and record until nothing is left."""


class LocalDriver:
    """Trials one after the other in this process.

    Args:
        engine: Trains them.
    """

    width = 1

    def __init__(self, engine: LocalEngine) -> None:
        self._engine = engine

    def drive(self, schedule: Schedule, runner: TrialRunner) -> None:
        """Claim, train and record until nothing is left; wait where other processes' trials have to end first."""
        while (work := schedule.next()) is not None:
            if isinstance(work, Pause):
                time.sleep(_PAUSE_S)
            else:
                runner.run(work, self._engine)


class Search:
    """One run of a study, from the baselines to the confirmation.

    Args:
        setup: What to search, and with what.
        folder: Where it is kept; its history is taken up.
        engine: Measures how long a step takes.
        driver: Runs the trials.
        reporter: Is told of everything.
    """

    def __init__(
        self, setup: Setup, folder: StudyFolder, engine: LocalEngine, driver: Driver, reporter: Reporter
    ) -> None:
        self._setup = setup
        self._folder = folder
        self._engine = engine
        self._driver = driver
        self._reporter = reporter
        self._runner = TrialRunner(setup, folder, reporter)
        self._schedule = Schedule(setup, folder, self._runner, reporter)

    def run(self) -> list[Finalist]:
        """Run what is left of the study.

        Returns:
            The confirmed designs; their scores are in the `confirm` study.

        Raises:
            AllTrialsFailed: No trial has a score.
            StudyError: The storage cannot be used.
        """
        if not self._schedule.is_over():
            self._announce()
        try:
            self._driver.drive(self._schedule, self._runner)
        finally:
            self._reporter.close()
        return self._schedule.finalists()

    def _announce(self) -> None:
        """Measure a few steps, print the plan and the time that it will take."""
        setup, strategy, baselines = self._setup, self._setup.strategy, self._schedule.baselines
        stages = plan_of(setup.sampler, setup.context)
        n_search = min(strategy.trials, sum(s.n_trials for s in stages))
        n_baselines = min(strategy.confirm.baselines, len(baselines))
        those = "baseline" if n_baselines == 1 else f"{n_baselines} baselines"
        references = self._schedule.references
        n_confirmed = strategy.confirm.best + n_baselines + n_of_front(setup) + len(references)
        n_confirm = n_confirmed * strategy.confirm.seeds
        n_steps = (len(baselines) + n_search) * strategy.search.steps + n_confirm * strategy.confirm.steps
        fitting = [b.design for b in baselines if setup.context.feasible(b.design)]
        # What tunes nothing takes no backward pass through the backbone, and no other trial is as fast.
        design = next((d for d in fitting if d.tunable), baselines[0].design)
        step_s, score_s = self._calibrate(design)
        n_scores = (len(baselines) + n_search) * strategy.search.evaluations + n_confirm
        done = self._steps_done()
        left_s = ((n_steps - done) * step_s + n_scores * score_s * (1 - done / n_steps)) / self._driver.width
        of_front = f"up to {n_of_front(setup)} designs of the front, " if n_of_front(setup) else ""
        note = self._reporter.note
        note(
            f"Plan: {len(baselines)} baselines, then {n_search} trials of {strategy.search.steps} steps "
            f"({strategy.name}, out of {setup.space.n_designs:,} designs of space {setup.space.name}), then "
            f"{of_front}the best {strategy.confirm.best} and the best {those} with "
            f"{strategy.confirm.seeds} seeds of {strategy.confirm.steps} steps"
            + (f", and likewise {' and '.join(r.name for r in references)}." if references else ".")
        )
        for s in stages if len(stages) > 1 else ():
            note(f"   {s.name:<14} {s.compared} of {s.n_choices} choices x {s.repeats} = {s.n_trials} trials")
        if len(stages) > 1 and any(s.repeats == 1 for s in stages):
            note("   A choice tried once has no standard error: the stages' decisions are rough at this many trials.")
        at_once = f", {self._driver.width} trials at a time" if self._driver.width > 1 else ""
        note(
            f"   about {format_seconds(left_s)}{at_once} ({1000 * step_s:.0f} ms a step, {score_s:.1f} s a validation)"
        )
        self._reporter.start(n_steps - done, left_s / max(1, n_steps - done))

    def _calibrate(self, design: Design) -> tuple[float, float]:
        """Seconds of a step and of a validation; zeros where the measurement fails, as the trials will tell why."""
        try:
            return self._engine.calibrate(self._runner.fit(design))
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
