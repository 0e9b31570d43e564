"""Run one study from its options to its result, for `peftsearch run`, its workers and sweeps over budgets."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from optuna.trial import TrialState

from peftsearch.design.design import Design
from peftsearch.engine.local import LocalEngine
from peftsearch.engine.probe import HeadStart
from peftsearch.errors import ConfigError, StudyError, one_line
from peftsearch.files import write_state
from peftsearch.options import changed_options
from peftsearch.samplers import plan_of
from peftsearch.samplers.strategy import LEFT_AFTER_CUT
from peftsearch.searcher.callbacks import Callback, CallbackFailed, Calling, tracker_callback
from peftsearch.searcher.conclude import Conclusion, conclude
from peftsearch.searcher.drivers import Driver, LocalDriver
from peftsearch.searcher.finalists import n_of_front
from peftsearch.searcher.heads import settle_heads
from peftsearch.searcher.lengths import BOUNDS
from peftsearch.searcher.options import RunOptions, parse_time, stored_options
from peftsearch.searcher.planning import plan_within, planned_steps
from peftsearch.searcher.prepare import Setup, prepare, stored_plan
from peftsearch.searcher.progress import Reporter
from peftsearch.searcher.ray.address import require_answer
from peftsearch.searcher.runner import TrialRunner
from peftsearch.searcher.schedule import Schedule
from peftsearch.study.best import BEST
from peftsearch.study.confirmed import Confirmed
from peftsearch.study.folder import StudyFolder, check_settings
from peftsearch.study.settings import SUBSPACE
from peftsearch.study.storage import storage_faults
from peftsearch.study.trials import facts_of
from peftsearch.tasks.own_metric import short_name
from peftsearch.tasks.suite import Suite
from peftsearch.tasks.task import class_counts
from peftsearch.trainer.tracking import check_trackers, tracking
from peftsearch.units import format_seconds, plural, show_bytes

BEFORE = "best-before.yaml"
"""The result that a study had before it went on, until it has a new one."""


def run_study(
    options: RunOptions,
    reporter: Reporter,
    *,
    resume: bool = False,
    like: Setup | None = None,
    extends: bool = False,
    callbacks: Sequence[Callback] = (),
) -> tuple[Setup, Conclusion]:
    """Prepare, search, confirm, judge, and write the result; resume the study if it exists.

    Args:
        options: The options of the run.
        reporter: Receiver of all events.
        resume: Whether to refuse to start a new study.
        like: A setup of the same model and task, to reuse its loaded backbone and encoded data.
        extends: Whether the options are those of a study on disk with larger numbers; see `extended`.
        callbacks: Functions of a study and a trial, called for every trial that ends.

    Raises:
        PeftSearchError: The options, the data, the model, the budget or the storage are invalid.
        AllTrialsFailed: No trial has a score.
    """
    names = check_trackers(options.study.track)
    with (
        _ready(options, like=like, extends=extends) as (setup, engine, driver),
        open_study(setup, resume=resume, extends=extends) as folder,
        tracking(names, setup.path.name, setup.path / "tracking", changed_options(options), reporter.note) as log,
    ):
        called = (*callbacks, *([tracker_callback(log)] if names else []))
        reporter = Calling(reporter, folder, called) if called else reporter
        for line in heading(setup):
            reporter.note(line)
        settle_heads(engine, folder.path)
        search, before = Search(setup, folder, engine, driver, reporter), folder.path / BEFORE
        if not search.is_over():
            if (folder.path / BEST).is_file():
                (folder.path / BEST).replace(before)  # a run that goes on is not finished until it has its new result
            search.announce()
        try:
            finalists = search.run()
        except CallbackFailed as failed:
            raise failed.__cause__ or failed from None
        found = conclude(setup, folder, finalists, engine)
        before.unlink(missing_ok=True)
        return setup, found


def show_plan(options: RunOptions, reporter: Reporter) -> None:
    """Show what a run would train, how long it would take and how much memory; nothing is kept.

    Args:
        options: The options of the run.
        reporter: Receiver of the lines.

    Raises:
        PeftSearchError: The options, the data, the model or the budget are invalid.
    """
    with _ready(options) as (setup, engine, driver), TemporaryDirectory() as place:
        for line in heading(setup):
            reporter.note(line)
        # The schedule reads a study; this one is thrown away.
        study = replace(setup.options.study, storage="")
        here = replace(setup, path=Path(place) / setup.path.name, options=replace(setup.options, study=study))
        with open_study(here) as folder:
            search = Search(here, folder, engine, driver, reporter)
            try:
                search.announce()
            finally:
                reporter.close()
            reporter.note(f"   {show_bytes(search.peak_memory())} at the peak of a training step, in each process")
        reporter.note("Nothing was trained: leave --dry-run out to start.")


@contextmanager
def _ready(
    options: RunOptions, *, like: Setup | None = None, extends: bool = False
) -> Iterator[tuple[Setup, LocalEngine, Driver]]:
    """Load everything, plan by `--time`, and make the driver."""
    started = time.monotonic()
    if options.engine.name == "ray":
        require_ray(options.engine.ray_address)
    known = stored_plan(options.study.runs / str(options.study.name)) if extends else None
    setup = prepare(options, like=like, plan=known)
    engine = engine_of(setup)
    with closing(driver_of(options, setup)) as driver:
        if options.search.time is not None and not extends and stored_plan(setup.path, setup.strategy.name) is None:
            end = started + parse_time(options.search.time)
            driver.widen(end - started)
            setup = prepare(options, like=setup, plan=plan_within(end, setup, engine, driver.width))
            engine = engine_of(setup, engine.fit_heads())
        yield setup, engine, driver


def require_ray(address: str | None) -> None:
    """Check that Ray Tune is installed and the cluster answers, before anything is loaded.

    Args:
        address: Address of the cluster; None for Ray on this machine.

    Raises:
        ConfigError: Ray Tune is not installed, or nothing answers at the address.
    """
    if find_spec("ray") is None or find_spec("ray.tune") is None:
        raise ConfigError("--engine ray needs Ray Tune: pip install 'peftsearch[ray]'")
    require_answer(address)


def driver_of(options: RunOptions, setup: Setup) -> Driver:
    """Make the driver that runs the trials: on this machine, or on Ray.

    Raises:
        ConfigError: Ray cannot be reached, or cannot hold a trial.
    """
    if options.engine.name == "local":
        return LocalDriver(options, setup.device, options.engine.workers)
    from peftsearch.searcher.ray.driver import RayDriver

    return RayDriver(options)


def join_study(options: RunOptions, device: str | None, reporter: Reporter) -> str:
    """Join a study that another process started; the last process to finish writes the result.

    Args:
        options: The options that the study was started with; see `read_options`.
        device: Device to train on; None for CUDA if available.
        reporter: Receiver of the events of this process.

    Returns:
        One sentence on how the work ended.

    Raises:
        PeftSearchError: The study does not exist, or cannot be used from here.
        AllTrialsFailed: No trial has a score.
    """
    setup = prepare(replace(options, machine=replace(options.machine, device=device)))
    with open_study(setup, resume=True, shared=True) as study:
        engine = engine_of(setup)
        for line in heading(setup):
            reporter.note(line)
        settle_heads(engine, study.path)
        runner = TrialRunner(setup, study, reporter)
        schedule = Schedule(setup, study, runner, reporter)
        LocalDriver(options, setup.device, workers=1).drive(schedule, runner, engine)
        if not study.lead():
            return "Nothing is left to train; the process that started the run writes its result."
        if not (study.path / BEST).exists():
            conclude(setup, study, schedule.finalists(), engine)
        return f"Nothing is left to train; the result is in {study.path / BEST}."


def engine_of(setup: Setup, heads: Sequence[HeadStart | None] | None = None) -> LocalEngine:
    """The engine of this process.

    Args:
        setup: The settings of the study.
        heads: What the head of each task starts from; None fits them when they are needed.
    """
    return LocalEngine(setup.loaded, setup.suite, setup.encoded, setup.training, setup.device, setup.autocast, heads)


@contextmanager
def open_study(
    setup: Setup, *, resume: bool = False, shared: bool = False, extends: bool = False
) -> Iterator[StudyFolder]:
    """Open the study's folder and close it at the end; faults of its storage become one-line errors.

    Raises:
        StudyError: The folder belongs to other settings, is in use or cannot be used, or holds no study to resume.
    """
    with storage_faults(setup.path):
        if not check_settings(setup.path, setup.settings, extends=extends) and resume:
            raise StudyError(f"{setup.path}: there is no study to resume; leave --resume out to start it")
        stored = stored_options(setup.options)
        folder = StudyFolder(setup.path, setup.settings, setup.options.study.storage, stored, shared, extends)
        if setup.backbone.subspace is not None and not (setup.path / SUBSPACE).exists():
            write_state(Path(setup.backbone.subspace.path).read_bytes(), setup.path / SUBSPACE)
        try:
            yield folder
        finally:
            folder.close()


def _chance(suite: Suite) -> str:
    """The score to beat, or the meaning of the score, if known before training."""
    if suite.kind == "generation":
        return " = -ln(perplexity)" if suite.metric == "log_likelihood" else ""
    return f" ({suite.majority_name} {suite.majority_score:.4f})"


def heading(setup: Setup) -> list[str]:
    """Lines that describe the search: model, task, budget, folder and notes."""
    from peftsearch.backbone.device import hardware

    backbone, suite, budget = setup.backbone, setup.suite, setup.budget
    sizes = f"{suite.n_train:,} train, {suite.n_validation:,} validation"
    if suite.n_test:
        sizes += f", {suite.n_test:,} test"
    size = f"{backbone.n_params:,} parameters, {len(backbone.blocks)} blocks"
    if setup.options.quantize is not None:
        size += f" in {setup.options.quantize}"
    return [
        f"Model: {backbone.name}, {size}, on {hardware(setup.device)}",
        f"Task: {suite.name}, {suite.kind}, {sizes}; {short_name(suite.metric)}" + _chance(suite),
        *(f"Classes: {classes}" for task in suite.tasks if (classes := class_counts(task))),
        f"Budget: {budget.text} = {budget.n_params:,} trainable parameters"
        + (", excluding the task head" if backbone.head and not setup.options.count_head else ""),
        f"Study: {setup.path} (rerun the same command to resume it)",
        *(f"Note: {note}" for note in (*setup.notes, *_time_notes(setup))),
    ]


def _time_notes(setup: Setup) -> tuple[str, ...]:
    """Say that the time is too little for trainings of the usual length."""
    limit, steps = setup.options.search.time, setup.lengths.steps
    if limit is None or steps >= BOUNDS[0]:
        return ()
    return (
        f"--time {limit} leaves trainings of {plural(steps, 'step')}, and {BOUNDS[0]} to {BOUNDS[1]} are usual: the "
        "verdict is about trainings of this length; more time, or fewer --trials, makes them longer",
    )


class Search:
    """One run of a study, from the baselines to the confirmation.

    Args:
        setup: The validated setup.
        folder: The study; its history is continued.
        engine: Engine that measures how long a step takes.
        driver: Driver that runs the trials.
        reporter: Receiver of all events.
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

    def is_over(self) -> bool:
        """Whether nothing is left to train."""
        return self._schedule.is_over()

    def run(self) -> list[Confirmed]:
        """Run the rest of the study.

        Returns:
            The confirmed designs; the `confirm` study holds their scores.

        Raises:
            AllTrialsFailed: No trial has a score.
            StudyError: The storage cannot be used.
        """
        try:
            self._driver.drive(self._schedule, self._runner, self._engine)
        finally:
            self._reporter.close()
        return self._schedule.finalists()

    def announce(self) -> None:
        """Measure a few steps, and print the plan and its expected time."""
        setup, strategy, baselines, lengths = (
            self._setup,
            self._setup.strategy,
            self._schedule.baselines,
            self._setup.lengths,
        )
        stages = plan_of(setup.sampler, setup.context)
        n_search = min(strategy.trials, sum(s.n_trials for s in stages))
        n_baselines = min(strategy.confirm.baselines, len(baselines))
        those = "baseline" if n_baselines == 1 else f"{n_baselines} baselines"
        designs = "design" if strategy.confirm.best == 1 else f"{strategy.confirm.best} designs"
        references = self._schedule.references
        confirm, looks = strategy.confirm, strategy.confirm.looks
        n_arms = confirm.best + n_baselines + confirm.cheap + n_of_front(setup)
        n_whole = confirm.n_trainings(n_arms) + len(references) * looks[0]
        n_steps = planned_steps(setup, len(baselines), n_search, n_whole)
        # A design that tunes nothing needs no backward pass through the backbone, so its time would be too short.
        design = next((b.design for b in setup.fitting if b.design.tunable), baselines[0].design)
        step_s, score_s = self._calibrate(design)
        n_scores = (len(baselines) + n_search) * strategy.search.evaluations + n_whole
        done = self._steps_done()
        left_s = (n_steps - done) * step_s + n_scores * score_s * (1 - done / n_steps)
        if self._driver.widen(left_s):  # with fewer threads each
            step_s, score_s = self._calibrate(design)
            left_s = (n_steps - done) * step_s + n_scores * score_s * (1 - done / n_steps)
        left_s /= self._driver.width
        self._runner.slow.expected_s = step_s
        of_front = f"up to {n_of_front(setup)} designs of the front, " if n_of_front(setup) else ""
        rungs = ", ".join(map(str, lengths.rungs))
        is_cut = confirm.cuts and n_arms > LEFT_AFTER_CUT
        ranked = "validation loss" if setup.select == "loss" else short_name(setup.suite.metric)
        seeds = f"{' or '.join(map(str, looks))} {'seed' if looks == (1,) else 'seeds'}"
        note = self._reporter.note
        note(
            f"Plan: trainings of {plural(lengths.steps, 'step')} ({lengths.epochs:.2g} epochs). "
            f"{plural(len(baselines), 'baseline')}, then {plural(n_search, 'trial')} up to step {rungs} "
            f"({strategy.name}, out of {setup.space.n_designs:,} designs of space {setup.space.name}), ranked by "
            f"{ranked}; then {of_front}the best {designs}"
            f"{', a cheap one' if confirm.cheap else ''} and the best {those} in whole trainings with {seeds}"
            + (f" (after {confirm.cut} seeds the best {LEFT_AFTER_CUT} go on)" if is_cut else "")
            + (f", and likewise {' and '.join(r.name for r in references)}." if references else ".")
        )
        for s in stages if len(stages) > 1 else ():
            note(f"   {s.name:<14} {s.compared} of {s.n_choices} choices x {s.repeats} = {plural(s.n_trials, 'trial')}")
        if len(stages) > 1 and any(s.repeats == 1 for s in stages):
            note("   A choice tried once has no standard error: the stages' decisions are rough with so few trials.")
        at_once = f", {self._driver.width} trials at a time" if self._driver.width > 1 else ""
        more = "" if len(looks) == 1 else f" with {looks[0]} seeds"
        note(
            f"   about {format_seconds(left_s)}{more}{at_once} "
            f"({1000 * step_s:.0f} ms per step, {score_s:.1f} s per validation)"
        )
        self._reporter.start(n_steps - done, left_s / max(1, n_steps - done))

    def peak_memory(self) -> int:
        """Bytes of a training step of the largest baseline that fits."""
        architectures = [self._runner.fit(b.design) for b in self._setup.fitting]
        largest = max(architectures, key=lambda a: a.n_params)
        return int(self._engine.measure(largest)["peak_memory_bytes"])

    def _calibrate(self, design: Design) -> tuple[float, float]:
        """Seconds per step and per validation; zeros if the measurement fails, because the trials will show why."""
        try:
            return self._engine.calibrate(self._runner.fit(design))
        except (RuntimeError, MemoryError) as error:
            self._reporter.note(f"Could not measure the time per step: {one_line(error)}")
            return 0.0, 0.0

    def _steps_done(self) -> int:
        trials = [*self._folder.search.get_trials(deepcopy=False), *self._folder.confirm.get_trials(deepcopy=False)]
        ended = [facts_of(t) for t in trials if t.state == TrialState.COMPLETE]
        done = sum((facts.steps or 0) - (facts.first or 0) for facts in ended)
        if self._folder.n_interrupted or done:
            n_done = sum(t.state == TrialState.COMPLETE for t in trials)
            self._reporter.note(
                f"Resuming {self._folder.path}: {plural(n_done, 'trial')} done, "
                f"{self._folder.n_interrupted} interrupted and rerun."
            )
        return int(done)
