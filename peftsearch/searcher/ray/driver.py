"""Run the schedule of a study on Ray Tune, for many GPUs or machines.

Only the driver process talks to the study: it claims work (`StudySearch.suggest`), receives intermediate scores
(`StudyPruner`) and records the result of each trial. Ray's workers only train (`JobTrainable`). Each worker builds its
engine once, from the backbone and the tokenised data in the object store, and keeps it from trial to trial
(`reuse_actors`). The confirmation's trained parameters come back with the outcome, so that no shared disk is needed.

The study is the only record: Tune's own is written to a temporary folder and discarded. If a worker dies during a
trial, the study records the trial as interrupted and reruns it, within the limit of `claims.MAX_LOSSES`.
"""

from __future__ import annotations

import logging
import os
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import Any

import ray
from ray import tune

from peftsearch.backbone.device import choose_device
from peftsearch.engine.local import LocalEngine
from peftsearch.errors import ConfigError, one_line
from peftsearch.searcher.options import EngineOptions, RunOptions
from peftsearch.searcher.ray.searcher import StudyPruner, StudySearch
from peftsearch.searcher.ray.worker import EngineParts, JobTrainable
from peftsearch.searcher.runner import TrialRunner
from peftsearch.searcher.schedule import Schedule

_QUIET = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}
"""Environment that keeps Tune from logging, from reporting usage and from handling Ctrl-C itself."""


class RayDriver:
    """Run a schedule on Ray, many trials at a time.

    Args:
        options: The options of the run, including those of the engine.

    Raises:
        ConfigError: The address does not answer, or the cluster cannot hold a trial.
    """

    def __init__(self, options: RunOptions) -> None:
        self._own = not ray.is_initialized()
        if self._own:
            connect(options.engine.ray_address)
        try:
            self._resources = _resources_of(options.engine)
            if options.quantize is not None:
                _require_cpu(options, self._resources)
            self.width = options.engine.max_concurrent or _n_at_once(self._resources)
        except BaseException:
            self.close()
            raise

    def widen(self, seconds: float) -> bool:
        """Nothing changes: the cluster's resources say how many trials fit."""
        return False

    def drive(self, schedule: Schedule, runner: TrialRunner, engine: LocalEngine) -> None:
        """Claim, train and record trials until none is left; the workers start from the heads of `engine`."""
        setup = runner.setup
        search = StudySearch(schedule, runner)
        parts, ctrl_c = EngineParts.of(setup, engine.fit_heads()), CtrlC()
        trainable = tune.with_parameters(
            JobTrainable,
            parts=parts,
            n_threads=max(1, int(self._resources["cpu"])),
            cuda=self._resources["gpu"] > 0,
        )
        with tempfile.TemporaryDirectory(prefix="peftsearch-tune-") as scratch:
            tuner = tune.Tuner(
                tune.with_resources(trainable, self._resources),
                tune_config=tune.TuneConfig(
                    metric="score",
                    mode="max",
                    search_alg=search,
                    scheduler=StudyPruner(search),
                    num_samples=-1,
                    max_concurrent_trials=self.width,
                    reuse_actors=True,
                    trial_dirname_creator=lambda trial: str(trial.trial_id),
                ),
                run_config=tune.RunConfig(
                    name="study",
                    storage_path=scratch,
                    verbose=0,
                    failure_config=tune.FailureConfig(max_failures=0),
                    checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
                    stop=partial(_is_stopped, search),
                    callbacks=[ctrl_c],
                ),
            )
            try:
                with ctrl_c.taken():
                    tuner.fit()
            except KeyboardInterrupt:
                search.interrupt()
                raise
            finally:
                search.close()
                setup.loaded.model.to(setup.device)
        if search.fault is not None:
            raise search.fault

    def close(self) -> None:
        """Leave the cluster, or stop the local one."""
        if self._own:
            ray.shutdown()


def connect(address: str | None) -> None:
    """Start Ray on this machine, or connect to a cluster.

    Args:
        address: `auto` or `HOST:PORT`; None starts Ray on this machine.

    Raises:
        ConfigError: The address does not answer.
    """
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # the reporter shows a trial's fault in one line
    here: dict[str, Any] = {"include_dashboard": False} if address is None else {}
    try:
        ray.init(address or "local", logging_level=logging.ERROR, log_to_driver=False, **here)
    except Exception as error:  # Ray may raise anything from ConnectionError to RuntimeError
        raise ConfigError(f"--ray-address {address or 'local'}: {one_line(error)}") from error


def _resources_of(options: EngineOptions) -> dict[str, float]:
    """Resources of one trial; by default one GPU if the cluster has any."""
    there, nodes = ray.cluster_resources(), _nodes()
    gpus = options.gpus_per_trial
    asked = {
        "cpu": options.cpus_per_trial,
        "gpu": float(there.get("GPU", 0) > 0) if gpus is None else gpus,
    }
    for name, amount in asked.items():
        most = max((node.get(name.upper(), 0) for node in nodes), default=0)
        if amount > most:
            raise ConfigError(
                f"--{name}s-per-trial {amount:g}: no node of the cluster has that many (the largest has {most:g})"
            )
    if not any(_n_on(node, asked) for node in nodes):  # Tune would wait forever for such a node
        raise ConfigError(
            f"--cpus-per-trial {asked['cpu']:g} and {asked['gpu']:g} GPUs per trial: no node of the cluster has both"
        )
    return asked


def _require_cpu(options: RunOptions, resources: dict[str, float]) -> None:
    """Refuse GPUs: packed weights lose their scales on the way from GPU to GPU through the object store.

    Raises:
        ConfigError: The trials or the driver would use a GPU.
    """
    if resources["gpu"] > 0 or choose_device(options.machine.device).type != "cpu":
        raise ConfigError(
            f"--quantize {options.quantize} with --engine ray works only on CPUs; on GPUs, start the run without "
            "--engine and add a `peftsearch worker RUN` for each further GPU"
        )


def _n_at_once(resources: dict[str, float]) -> int:
    """Number of trials that fit on the cluster at once; no trial spans several nodes."""
    return max(1, sum(_n_on(node, resources) for node in _nodes()))


def _nodes() -> list[dict[str, float]]:
    """Resources of the cluster's nodes that are alive."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _n_on(node: dict[str, float], resources: dict[str, float]) -> int:
    """Number of trials that fit on a node at once."""
    return min(int(node.get(name.upper(), 0) / amount) for name, amount in resources.items() if amount > 0)


def _is_stopped(search: StudySearch, trial_id: str, result: dict[str, Any]) -> bool:
    """Whether a fault of the study ends all trials."""
    return search.fault is not None


class CtrlC(tune.Callback):  # type: ignore[misc]  # ray ships no complete types
    """Handle Ctrl-C between two steps of Tune's loop (tenths of a second), never in the middle of one.

    An exception raised at an arbitrary point might be raised inside a callback of Ray, which swallows it, or between
    two writes to the study. A second press raises at once, in case the loop itself is stuck.
    """

    def __init__(self) -> None:
        self._is_pressed = False

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Handle the signal while the context is open.

        Raises:
            KeyboardInterrupt: Ctrl-C was pressed and no further step of the loop followed.
        """
        if threading.current_thread() is not threading.main_thread():  # signals belong to the main thread
            yield
            return
        before = signal.signal(signal.SIGINT, self._press)
        try:
            yield
            self.on_step_begin()
        finally:
            signal.signal(signal.SIGINT, before)

    def _press(self, number: int, frame: FrameType | None) -> None:
        if self._is_pressed:
            raise KeyboardInterrupt("Ctrl-C was pressed twice")
        self._is_pressed = True

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """End the run if Ctrl-C was pressed."""
        if self._is_pressed:
            raise KeyboardInterrupt
