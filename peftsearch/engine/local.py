"""The in-process engine: one loaded backbone, data encoded once, one trial at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import mean

import torch

from peftsearch.backbone.heads import Head, make_heads, wearing
from peftsearch.backbone.load import LoadedBackbone, n_head_params
from peftsearch.design.architecture import Architecture
from peftsearch.engine.evaluation import Evaluation
from peftsearch.engine.job import Job, Outcome
from peftsearch.engine.loop import TrainingLog, adamw, train
from peftsearch.engine.measure import Meter
from peftsearch.engine.probe import HeadStart, fit_head
from peftsearch.engine.scoring import Scorer
from peftsearch.engine.settings import TrainingSettings
from peftsearch.engine.snapshot import Average, average_from, pause, thaw
from peftsearch.engine.trainable import Start, checkpointing, groups_of, ready
from peftsearch.errors import Diverged
from peftsearch.injection.states import packed_state
from peftsearch.tasks.encoding.batches import batches
from peftsearch.tasks.encoding.encoded import EncodedSplit, EncodedTask
from peftsearch.tasks.encoding.subset import at_most
from peftsearch.tasks.suite import Suite

MOST_RETRIES, RETRY_FACTOR = 2, 0.4
"""Times that a collapsed training is tried again, and the factor on its rate each time."""
EVALUATION_BATCH = 128
"""Fewest examples per forward pass without gradients, where a head gives few logits."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Track:
    """One task in the form that the engine trains it."""

    encoded: EncodedTask
    objective: Scorer
    head: Head


@dataclass(frozen=True, kw_only=True, slots=True)
class _Part:
    """The result of a job on one task; see `Outcome`."""

    evaluation: Evaluation
    n_head: int
    train_loss: float | None
    train_s: float
    measures: dict[str, float]
    state: bytes | None
    paused: bytes | None
    test: Evaluation | None
    n_collapsed: int = 0


class LocalEngine:
    """Run jobs on the backbone that this process holds.

    Args:
        loaded: The backbone, which every job restores bit for bit.
        suite: The tasks, for losses, metrics and heads; the backbone's own head is that of the first task.
        encoded: The tokenised splits of each task.
        settings: Training settings of the study.
        device: Where the model is.
        autocast: Reduced precision of the forward pass, or None.
        heads: What the head of each task starts from, as `fit_heads` gives it; None fits them at the first job.
    """

    def __init__(
        self,
        loaded: LoadedBackbone,
        suite: Suite,
        encoded: Sequence[EncodedTask],
        settings: TrainingSettings,
        device: torch.device,
        autocast: torch.dtype | None,
        heads: Sequence[HeadStart | None] | None = None,
    ) -> None:
        self._loaded = loaded
        self._heads = heads
        self._starts: dict[int, Evaluation] = {}
        modules = make_heads(loaded, [task.num_labels for task in suite.tasks])
        self._tracks = [
            _Track(encoded=data, objective=Scorer(task, settings), head=head)
            for task, data, head in zip(suite.tasks, encoded, modules, strict=True)
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
            dropout=settings.dropout,
        )

    def use_heads(self, heads: Sequence[HeadStart | None]) -> None:
        """Start from heads that were fitted before."""
        self._heads = heads

    def fit_heads(self) -> tuple[HeadStart | None, ...]:
        """What the head of each task starts from: fitted on the frozen features; None for a random start."""
        if self._heads is None:
            self._heads = tuple(self._fit_head(track) for track in self._tracks)
        return tuple(self._heads)

    def _fit_head(self, track: _Track) -> HeadStart | None:
        if self._settings.head != "probe":
            return None
        with wearing(self._loaded.model, track.head):
            return fit_head(
                self._loaded,
                track.objective,
                track.encoded.train,
                batch_size=self._batch_size(track),
                device=self._device,
                autocast=self._autocast,
            )

    def run(self, job: Job, report: Callable[[int, float], None] | None = None) -> Outcome:
        """Train one architecture and score it on the validation split.

        Args:
            job: The job to run.
            report: Called with step and value at each validation before the last; an exception from it ends the job.

        Returns:
            The outcome; the model is restored whatever happens.

        Raises:
            Diverged: The loss is no longer a number.
        """
        stages = self.stages(job)
        try:
            while True:
                step, value = next(stages)
                if report is not None:
                    report(step, value)
        except StopIteration as end:
            outcome: Outcome = end.value
            return outcome
        finally:
            stages.close()

    def stages(self, job: Job) -> Generator[tuple[int, float], None, Outcome]:
        """Train one architecture on every task, from validation to validation; closing the generator ends the job.

        Yields:
            Step and value of each validation before the last. With several tasks the step includes those of the earlier
            tasks, and the value is the mean over the tasks so far.

        Returns:
            The outcome; the model is restored whatever happens.

        Raises:
            Diverged: The loss is no longer a number.
            StudyError: A snapshot is damaged.
        """
        started = time.perf_counter()
        parts: list[_Part] = []
        for i, track in enumerate(self._tracks):
            done = [_value(job, part.evaluation) for part in parts]
            if done:
                yield len(done) * job.steps, mean(done)
            paused = job.paused[i] if job.paused else None
            one = self._attempts(track, job, self.fit_heads()[i], paused, measure=job.measure and not done)
            try:
                while True:
                    step, evaluation = next(one)
                    yield len(done) * job.steps + step, mean([*done, _value(job, evaluation)])
            except StopIteration as end:
                parts.append(end.value)
            finally:
                one.close()
        evaluations = [part.evaluation for part in parts]
        scores = tuple(each.score for each in evaluations)
        known = [score for score in scores if score is not None]
        return Outcome(
            value=mean(_value(job, each) for each in evaluations),
            score=mean(known) if len(known) == len(scores) else None,
            loss=mean(each.loss for each in evaluations),
            task_scores=scores,
            losses=tuple(each.losses for each in evaluations),
            right=tuple(each.right for each in evaluations),
            n_params=job.architecture.n_params,
            n_head=max(part.n_head for part in parts),
            train_loss=mean(losses) if (losses := [p.train_loss for p in parts if p.train_loss is not None]) else None,
            train_s=sum(part.train_s for part in parts),
            wall_s=time.perf_counter() - started,
            measures=parts[0].measures,
            states=tuple(part.state for part in parts if part.state is not None),
            paused=tuple(part.paused for part in parts if part.paused is not None),
            tests=tuple(part.test for part in parts if part.test is not None),
            n_collapsed=sum(part.n_collapsed for part in parts),
        )

    def _attempts(
        self, track: _Track, job: Job, head: HeadStart | None, paused: bytes | None, measure: bool
    ) -> Generator[tuple[int, Evaluation], None, _Part]:
        """Train on one task as `_train` does, and if the job asks for it again at a lower rate after a collapse.

        A training has collapsed if it diverges, or ends with a higher loss and no better score than it starts with. If
        every attempt does, the best of them counts.
        """
        ended: list[_Part] = []
        for attempt in range(MOST_RETRIES + 1):
            own = replace(job, learning_rate=job.learning_rate * RETRY_FACTOR**attempt)
            last = attempt == MOST_RETRIES or not job.retry
            try:
                part = yield from self._train(track, own, head, paused, measure)
            except Diverged:
                if last and not ended:
                    raise
                continue
            if not job.retry or not _is_worse(part.evaluation, self._start(track, head)):
                return replace(part, n_collapsed=attempt)
            ended.append(part)
        best = max(ended, key=lambda part: _ranking(part.evaluation))
        return replace(best, n_collapsed=MOST_RETRIES)

    def _start(self, track: _Track, head: HeadStart | None) -> Evaluation:
        """The validation before the first step; measured once a task."""
        key = id(track)
        if key not in self._starts:
            job = Job(architecture=Architecture(placements=()), learning_rate=0.0, steps=0, measure=False)
            one = self._train(track, job, head, None, measure=False)
            try:
                next(one)
            except StopIteration as end:
                part: _Part = end.value
                self._starts[key] = part.evaluation
        return self._starts[key]

    def _train(
        self, track: _Track, job: Job, head: HeadStart | None, paused: bytes | None, measure: bool
    ) -> Generator[tuple[int, Evaluation], None, _Part]:
        """Train on one task; yields step and evaluation of each validation before the last."""
        model = self._loaded.model
        start = Start(
            loaded=self._loaded,
            data=track.encoded.train,
            seed=job.seed,
            batch_size=self._settings.batch_size,
            loss_of=track.objective.loss,
            device=self._device,
            autocast=self._autocast,
            choose=paused is None,
            head=head,
        )
        validation = track.encoded.validation
        if job.n_validation is not None:
            validation = at_most(validation, job.n_validation)
        with (
            wearing(model, track.head),
            ready(job.architecture, start),
            checkpointing(model, self._settings.gradient_checkpointing),
        ):
            groups = groups_of(self._loaded, job.architecture, replace(self._settings, learning_rate=job.learning_rate))
            # Without anything to train (a frozen model), the loop only watches the loss.
            optimizer = adamw(groups, self._device) if groups else None
            first, log = 0, TrainingLog()
            if paused is not None and optimizer is not None:
                first, log = thaw(paused, model, optimizer)
            new, average = TrainingLog(), Average()
            pauses = job.end < job.steps and optimizer is not None
            if job.end > first:
                steps = train(
                    model,
                    groups,
                    batches(track.encoded.train, self._settings.batch_size, seed=job.seed, steps=job.end, first=first),
                    n_steps=job.steps,
                    settings=self._settings,
                    loss_of=track.objective.loss,
                    device=self._device,
                    autocast=self._autocast,
                    seed=job.seed,
                    optimizer=optimizer,
                    first=first,
                    until=job.end,
                )
                stops = evaluation_steps(job.end, job.evaluations)[:-1]
                while True:
                    try:
                        step = next(steps)
                    except StopIteration as end:
                        new = end.value
                        break
                    if pauses and step > max(first, average_from(job.end, job.steps, self._settings.warmup_share)):
                        average.add(model)
                    if step in stops:
                        yield step, self._evaluate(track, validation, job)
            log = TrainingLog(losses=[*log.losses, *new.losses], step_s=[*log.step_s, *new.step_s])
            tail = log.losses[-max(1, len(log.losses) // 10) :]
            paused = None
            if pauses and optimizer is not None:
                paused = pause(model, optimizer, job.end, log) if job.snapshot else None
                average.put(model)
            return _Part(
                evaluation=self._evaluate(track, validation, job),
                n_head=n_head_params(self._loaded),
                train_loss=mean(tail) if tail else None,
                train_s=new.train_s,
                measures=self._meter.measure(job.architecture, log.step_s or [0.0]) if measure else {},
                state=packed_state(model) if job.keep_state else None,
                paused=paused,
                test=self._full(track, track.encoded.test) if job.test and track.encoded.test else None,
            )

    def calibrate(self, architecture: Architecture, steps: int = 8) -> tuple[float, float]:
        """Seconds of one training step on all tasks, and of all validations, from a few steps after a warm-up.

        A GPU loads a kernel when it first meets a shape, which takes many times a step, so it warms up on all of them.
        """
        warm = steps if self._device.type == "cuda" else 2
        self.run(Job(architecture=architecture, learning_rate=0.0, steps=warm, measure=False))
        outcome = self.run(Job(architecture=architecture, learning_rate=0.0, steps=steps, measure=False))
        return outcome.train_s / steps, outcome.wall_s - outcome.train_s

    def measure(self, architecture: Architecture) -> Mapping[str, float]:
        """What an architecture costs; see `Meter.measure`."""
        return self.run(Job(architecture=architecture, learning_rate=0.0, steps=1, measure=True)).measures

    def frozen(self) -> tuple[Evaluation, ...]:
        """The untrained backbone on the test split of each task; for tasks without a head."""
        tests = [(track, track.encoded.test) for track in self._tracks]
        return tuple(self._full(track, test) for track, test in tests if test is not None)

    def _evaluate(self, track: _Track, split: EncodedSplit, job: Job) -> Evaluation:
        """Losses on a split, and the score where it costs little or decides."""
        generates = track.objective.n_outputs == 0
        partial = generates and (job.until is not None or len(split) < len(track.encoded.validation))
        if partial and job.select == "metric":
            split, partial = track.encoded.validation, False  # texts are generated for a whole split
        return self._full(track, split, with_score=not partial)

    def _full(self, track: _Track, split: EncodedSplit, with_score: bool = True) -> Evaluation:
        return track.objective.evaluate(
            self._loaded.model,
            split,
            batch_size=self._batch_size(track),
            device=self._device,
            autocast=self._autocast,
            with_score=with_score,
        )

    def _batch_size(self, track: _Track) -> int:
        """Examples per forward pass without gradients; logits of a whole vocabulary leave room for few."""
        own = 2 * self._settings.batch_size
        return own if track.objective.n_outputs == 0 else max(own, EVALUATION_BATCH)


def _value(job: Job, evaluation: Evaluation) -> float:
    """What ranks an evaluation, the higher the better."""
    if job.select == "loss" or evaluation.score is None:
        return -evaluation.loss
    return evaluation.score


def _ranking(evaluation: Evaluation) -> tuple[float, float]:
    """Score first, then loss; the higher the better."""
    return 0.0 if evaluation.score is None else evaluation.score, -evaluation.loss


def _is_worse(end: Evaluation, start: Evaluation) -> bool:
    """Whether a training has made the loss worse and the score no better.

    The loss alone may rise on few examples where the predictions improve.
    """
    no_better = end.score is None or start.score is None or end.score <= start.score
    return end.loss > start.loss and no_better


def evaluation_steps(steps: int, evaluations: int) -> tuple[int, ...]:
    """The steps after which a trial is scored: `evaluations` of them, evenly spread, the last at the end."""
    n = min(evaluations, steps)
    return tuple(round(steps * (i + 1) / n) for i in range(n))
