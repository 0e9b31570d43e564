"""The in-process engine: one loaded backbone, data encoded once, one trial at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import torch

from peftsearch.backbone.heads import Head, make_heads, wearing
from peftsearch.backbone.load import LoadedBackbone, n_head_params
from peftsearch.design.architecture import Architecture
from peftsearch.engine.job import Job, Outcome
from peftsearch.engine.loop import TrainingLog, train
from peftsearch.engine.measure import Meter
from peftsearch.engine.scoring import Scorer
from peftsearch.engine.settings import TrainingSettings
from peftsearch.engine.trainable import groups_of, ready
from peftsearch.injection.inject import inject
from peftsearch.injection.states import load_state, packed_state
from peftsearch.tasks.encoding.batches import batches
from peftsearch.tasks.encoding.encoded import EncodedSplit, EncodedTask
from peftsearch.tasks.suite import Suite


@dataclass(frozen=True, kw_only=True, slots=True)
class _Track:
    """One task in the form that the engine trains it."""

    encoded: EncodedTask
    objective: Scorer
    head: Head


@dataclass(frozen=True, kw_only=True, slots=True)
class _Part:
    """The result of a job on one task; see `Outcome`."""

    score: float
    right: Sequence[float]
    n_head: int
    loss: float
    train_s: float
    measures: dict[str, float]
    state: bytes | None
    test: float | None


class LocalEngine:
    """Run jobs on the backbone that this process holds.

    Args:
        loaded: The backbone, which every job restores bit for bit.
        suite: The tasks, for losses, metrics and heads; the backbone's own head is that of the first task.
        encoded: The tokenised splits of each task.
        settings: Training settings of the study.
        device: Where the model is.
        autocast: Reduced precision of the forward pass, or None.
    """

    def __init__(
        self,
        loaded: LoadedBackbone,
        suite: Suite,
        encoded: Sequence[EncodedTask],
        settings: TrainingSettings,
        device: torch.device,
        autocast: torch.dtype | None,
    ) -> None:
        self._loaded = loaded
        heads = make_heads(loaded, [task.num_labels for task in suite.tasks])
        self._tracks = [
            _Track(encoded=data, objective=Scorer(task), head=head)
            for task, data, head in zip(suite.tasks, encoded, heads, strict=True)
        ]
        self._settings = settings
        self._device = device
        self._autocast = autocast
        self._meter = Meter(
            loaded.model,
            encoded[0].train,
            loss_of=self._tracks[0].objective.loss,
            batch_size=settings.batch_size,
            device=device,
            autocast=autocast,
        )

    def run(self, job: Job, report: Callable[[int, float], None] | None = None) -> Outcome:
        """Train one architecture and score it on the validation split.

        Args:
            job: The job to run.
            report: Called with step and score at each validation before the last; an exception from it ends the job.

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
        """Train one architecture on every task, from validation to validation; closing the generator ends the job.

        Yields:
            Step and score of each validation before the last. With several tasks the step includes those of the earlier
            tasks, and the score is the mean over the tasks so far.

        Returns:
            The outcome; the model is restored whatever happens.

        Raises:
            Diverged: The loss is no longer a number.
        """
        started = time.perf_counter()
        parts: list[_Part] = []
        for track in self._tracks:
            done = [part.score for part in parts]
            if done:
                yield len(done) * job.steps, mean(done)
            one = self._train(track, job, measure=job.measure and not done)
            try:
                while True:
                    step, score = next(one)
                    yield len(done) * job.steps + step, mean([*done, score])
            except StopIteration as end:
                parts.append(end.value)
            finally:
                one.close()
        return Outcome(
            score=mean(part.score for part in parts),
            task_scores=tuple(part.score for part in parts),
            right=tuple(part.right for part in parts),
            n_params=job.architecture.n_params,
            n_head=max(part.n_head for part in parts),
            loss=mean(part.loss for part in parts),
            train_s=sum(part.train_s for part in parts),
            wall_s=time.perf_counter() - started,
            measures=parts[0].measures,
            states=tuple(part.state for part in parts if part.state is not None),
            test_scores=tuple(part.test for part in parts if part.test is not None),
        )

    def _train(self, track: _Track, job: Job, measure: bool) -> Generator[tuple[int, float], None, _Part]:
        """Train on one task; yields step and score of each validation before the last."""
        model = self._loaded.model
        stops = evaluation_steps(job.steps, job.evaluations)
        started = ready(
            self._loaded,
            job.architecture,
            track.encoded.train,
            seed=job.seed,
            batch_size=self._settings.batch_size,
            loss_of=track.objective.loss,
            device=self._device,
            autocast=self._autocast,
        )
        with wearing(model, track.head), started:
            torch.manual_seed(job.seed)
            steps = train(
                model,
                groups_of(self._loaded, job.architecture, job.learning_rate),
                batches(track.encoded.train, self._settings.batch_size, seed=job.seed, steps=job.steps),
                n_steps=job.steps,
                settings=self._settings,
                loss_of=track.objective.loss,
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
                    yield step, self._score(track, track.encoded.validation)[0]
            score, right = self._score(track, track.encoded.validation)
            tail = log.losses[-max(1, len(log.losses) // 10) :]
            return _Part(
                score=score,
                right=right,
                n_head=n_head_params(self._loaded),
                loss=mean(tail),
                train_s=log.train_s,
                measures=self._meter.measure(job.architecture, log.step_s) if measure else {},
                state=packed_state(model) if job.keep_state else None,
                test=self._score(track, track.encoded.test)[0] if job.test and track.encoded.test else None,
            )

    def test_scores(self, architecture: Architecture, states: Sequence[Path]) -> list[float]:
        """Score trained states, one per task, on the tasks' test splits, which must exist."""
        model, scores = self._loaded.model, []
        for track, path in zip(self._tracks, states, strict=True):
            assert track.encoded.test is not None, "the task has no test split"
            with wearing(model, track.head), inject(model, architecture, self._loaded.backbone):
                load_state(model, path)
                scores.append(self._score(track, track.encoded.test)[0])
        return scores

    def calibrate(self, architecture: Architecture, steps: int = 5) -> tuple[float, float]:
        """Seconds of one training step on all tasks, and of all validations, from a few steps after a warm-up."""
        self.run(Job(architecture=architecture, learning_rate=0.0, steps=2, measure=False))
        outcome = self.run(Job(architecture=architecture, learning_rate=0.0, steps=steps, measure=False))
        return outcome.train_s / steps, outcome.wall_s - outcome.train_s

    def frozen(self) -> tuple[float, tuple[Sequence[float], ...]]:
        """Validation score of the untrained backbone and its `Outcome.right`; for tasks without a head."""
        parts = [self._score(track, track.encoded.validation) for track in self._tracks]
        return mean(score for score, _ in parts), tuple(right for _, right in parts)

    def _score(self, track: _Track, split: EncodedSplit) -> tuple[float, Sequence[float]]:
        return track.objective.score(
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
