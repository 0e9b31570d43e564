"""The in-process engine: one loaded backbone, data encoded once, trials one after the other."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from pathlib import Path

import torch

from peftsearch.architecture import Architecture
from peftsearch.backbone.load import LoadedBackbone, n_head_params, reset_head
from peftsearch.engines.job import Job, Outcome
from peftsearch.evaluate import Objective
from peftsearch.injection import inject, load_state, packed_state, param_groups
from peftsearch.measure import Meter
from peftsearch.tasks.encode import EncodedSplit, EncodedTask, batches
from peftsearch.tasks.task import Task
from peftsearch.training import TrainingLog, TrainingSettings, train


class LocalEngine:
    """Runs jobs on the backbone that this process holds.

    Args:
        loaded: The backbone; every job leaves it bit for bit as it was.
        task: The task, for loss and metric.
        encoded: Its tokenised splits.
        settings: Training settings of the study.
        device: Where the model is.
        autocast: Reduced precision of the forward pass, or None.
    """

    def __init__(
        self,
        loaded: LoadedBackbone,
        task: Task,
        encoded: EncodedTask,
        settings: TrainingSettings,
        device: torch.device,
        autocast: torch.dtype | None,
    ) -> None:
        self._loaded = loaded
        self._encoded = encoded
        self._objective = Objective(task)
        self._settings = settings
        self._device = device
        self._autocast = autocast
        self._meter = Meter(
            loaded.model,
            encoded.train,
            loss_of=self._objective.loss,
            batch_size=settings.batch_size,
            device=device,
            autocast=autocast,
        )

    def run(self, job: Job, report: Callable[[int, float], None] | None = None) -> Outcome:
        """Train one architecture and score it on the validation split.

        Args:
            job: What to train.
            report: Called with step and score at each validation before the last; what it raises ends the job.

        Returns:
            The outcome; the model is restored whatever happens.

        Raises:
            Diverged: The loss is no longer a number.
        """
        stages = self.stages(job)
        try:
            while True:
                step, score = next(stages)
                if report is not None:
                    report(step, score)
        except StopIteration as end:
            outcome: Outcome = end.value
            return outcome
        finally:
            stages.close()

    def stages(self, job: Job) -> Generator[tuple[int, float], None, Outcome]:
        """Train one architecture from validation to validation; closing the generator ends the job.

        Yields:
            Step and score of each validation before the last.

        Returns:
            The outcome; the model is restored whatever happens.

        Raises:
            Diverged: The loss is no longer a number.
        """
        started = time.perf_counter()
        model, backbone = self._loaded.model, self._loaded.backbone
        stops = evaluation_steps(job.steps, job.evaluations)
        with inject(model, job.architecture, backbone, seed=job.seed):
            reset_head(model, backbone, job.seed)
            torch.manual_seed(job.seed)
            steps = train(
                model,
                param_groups(model, job.learning_rate),
                batches(self._encoded.train, self._settings.batch_size, seed=job.seed, steps=job.steps),
                n_steps=job.steps,
                settings=self._settings,
                loss_of=self._objective.loss,
                device=self._device,
                autocast=self._autocast,
            )
            while True:
                try:
                    step = next(steps)
                except StopIteration as end:
                    log: TrainingLog = end.value
                    break
                if step in stops[:-1]:
                    yield step, self._score(self._encoded.validation)[0]
            score, right = self._score(self._encoded.validation)
            measures = self._meter.measure(job.architecture, log.step_s) if job.measure else {}
            tail = log.losses[-max(1, len(log.losses) // 10) :]
            return Outcome(
                score=score,
                right=right,
                n_params=job.architecture.n_params,
                n_head=n_head_params(self._loaded),
                loss=sum(tail) / len(tail),
                train_s=log.train_s,
                wall_s=time.perf_counter() - started,
                measures=measures,
                state=packed_state(model) if job.keep_state else None,
            )

    def test_score(self, architecture: Architecture, state: Path) -> float:
        """Score a trained state on the test split, which the task must have."""
        assert self._encoded.test is not None, "the task has no test split"
        with inject(self._loaded.model, architecture, self._loaded.backbone):
            load_state(self._loaded.model, state)
            return self._score(self._encoded.test)[0]

    def calibrate(self, architecture: Architecture, steps: int = 5) -> tuple[float, float]:
        """Seconds of a training step and of a validation, measured on a few steps after a warm-up."""
        self.run(Job(architecture=architecture, learning_rate=0.0, steps=2, measure=False))
        outcome = self.run(Job(architecture=architecture, learning_rate=0.0, steps=steps, measure=False))
        return outcome.train_s / steps, outcome.wall_s - outcome.train_s

    def _score(self, split: EncodedSplit) -> tuple[float, list[bool]]:
        return self._objective.score(
            self._loaded.model,
            split,
            batch_size=2 * self._settings.batch_size,
            device=self._device,
            autocast=self._autocast,
        )


def evaluation_steps(steps: int, evaluations: int) -> tuple[int, ...]:
    """The steps after which a trial is scored: `evaluations` of them, evenly spread, the last at the end."""
    n = min(evaluations, steps)
    return tuple(round(steps * (i + 1) / n) for i in range(n))
