"""Losses and scores of a model on a split: predictions batch by batch, then the mean loss and the task's metric."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn

from peftsearch.engine.evaluation import Evaluation
from peftsearch.engine.generation import log_likelihoods, score_pairs
from peftsearch.engine.loop import forward
from peftsearch.engine.settings import TrainingSettings
from peftsearch.errors import ConfigError, Diverged
from peftsearch.tasks.encoding.batches import eval_batches
from peftsearch.tasks.encoding.encoded import EncodedSplit
from peftsearch.tasks.encoding.pairs import IGNORED, EncodedPairs
from peftsearch.tasks.encoding.spans import FIRST, LAST, EncodedSpans, best_spans
from peftsearch.tasks.kinds import QUESTIONS, TITLES, Answers, Kind, flat
from peftsearch.tasks.metrics import score
from peftsearch.tasks.own_metric import call_own, is_own
from peftsearch.tasks.span_metrics import OF_ANSWERS
from peftsearch.tasks.task import Task


class Scorer:
    """Loss and score of one task.

    Regression targets are standardised with the training split's mean and standard deviation, which does not affect the
    correlations that score them.

    Args:
        task: The task, for its kind, metric and training labels.
        settings: Training settings, for what changes the training loss; None changes nothing.

    Raises:
        ConfigError: The settings weigh or smooth classes of a task that has none.
    """

    def __init__(self, task: Task, settings: TrainingSettings | None = None) -> None:
        self._metric = task.metric
        kind = TITLES.get(task.kind, task.kind)
        if settings is not None and settings.class_weights != "none" and task.kind != "classification":
            raise ConfigError(f"--class-weights {settings.class_weights}: is not for {kind}; leave it out")
        if settings is not None and settings.label_smoothing and task.kind in ("regression", "multi_label", QUESTIONS):
            raise ConfigError(f"--label-smoothing: is not for {kind}; leave it out")
        self._smoothing = 0.0 if settings is None else settings.label_smoothing
        weighted = settings is not None and settings.class_weights == "balanced" and task.kind == "classification"
        self._weights = class_weights(task) if weighted else None
        self.kind = task.kind
        """Kind of the task."""
        self.n_outputs = task.num_labels
        """Outputs of the head: the number of classes, 1 for a target, 0 without a head."""
        self._names = task.labels
        targets = torch.tensor(task.train.labels, dtype=torch.float64) if self.is_regression else torch.zeros(1)
        self.mean = float(targets.mean())
        """Mean of the training targets; 0 for classes."""
        self.scale = max(float(targets.std(correction=0)), 1e-12)
        """Standard deviation of the training targets; 1e-12 at least."""

    @property
    def is_regression(self) -> bool:
        """Whether the task has targets instead of classes."""
        return self.kind == "regression"

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Loss to train: cross-entropy, weighted and smoothed as the settings say, or the standardised squared error.

        The classes of a multi-label task have a binary cross-entropy each, and the two ends of an answer a
        cross-entropy over the candidates each.

        Args:
            logits: `(batch, num_labels)`, or `(batch, seq, n)` for tags, for the vocabulary of a generation and for
                answers, where n is 2.
            labels: Class indices or targets `(batch,)`, a 1 or 0 for every class `(batch, num_labels)`, the tags or
                tokens to learn `(batch, seq)`, or the ends of answers `(batch, seq, 2)`.
        """
        if self.kind == QUESTIONS:
            ends = logits.masked_fill(labels == IGNORED, -torch.inf).transpose(1, 2).flatten(0, 1)
            return nn.functional.cross_entropy(ends, (labels == 1).int().argmax(1).flatten())
        if self.kind == "multi_label":
            return nn.functional.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype))
        if self.is_regression:
            return nn.functional.mse_loss(logits.squeeze(-1), self._standardised(labels))
        flat, targets = logits.flatten(0, -2), labels.flatten()
        if self._weights is None:
            return nn.functional.cross_entropy(flat, targets, label_smoothing=self._smoothing)
        # The plain mean of weighted losses: torch divides by the weights of the part, and parts of a batch would
        # count otherwise than the whole.
        weights = self._weights.to(logits)
        return nn.functional.cross_entropy(
            flat, targets, weight=weights, label_smoothing=self._smoothing, reduction="none"
        ).mean()

    def evaluate(
        self,
        model: nn.Module,
        split: EncodedSplit,
        *,
        batch_size: int,
        device: torch.device,
        autocast: torch.dtype | None,
        with_score: bool = True,
    ) -> Evaluation:
        """Losses and score of a split; the model is left in evaluation mode.

        Args:
            model: The model.
            split: The examples.
            batch_size: Examples per forward pass.
            device: Where the model is.
            autocast: Reduced precision of the forward pass, or None.
            with_score: Whether to compute the metric, for which a generation task generates texts.

        Raises:
            Diverged: An output is not a finite number.
        """
        if self.n_outputs == 0:
            sums, n_tokens = log_likelihoods(model, split, batch_size=batch_size, device=device, autocast=autocast)
            weight = len(sums) / sum(n_tokens)
            losses = tuple(-weight * value for value in sums)
            if not with_score:
                return Evaluation(losses=losses)
            assert isinstance(split, EncodedPairs), "texts are generated for a whole split"
            found, hits = score_pairs(
                model, split, self._metric, batch_size=batch_size, device=device, autocast=autocast, sums=sums
            )
            return Evaluation(losses=losses, score=found, right=hits)
        logits = logits_of(model, split, batch_size=batch_size, device=device, autocast=autocast)
        require_finite(logits)
        right: list[bool] = []
        if self._metric == "accuracy":
            right = [p == t for p, t in zip(logits.argmax(-1).tolist(), split.labels, strict=True)]
        value: float | None = None
        if self.kind == QUESTIONS and with_score:
            assert isinstance(split, EncodedSpans), "questions are encoded so"
            value, right = score_answers(self._metric, logits, split)  # type: ignore[assignment]  # hits are numbers
        elif with_score:
            value = self.score(logits, split.labels)
        return Evaluation(losses=self._losses(logits, split.labels), score=value, right=right)

    def _losses(self, logits: Tensor, answers: Answers) -> tuple[float, ...]:
        """The loss of each example; of tags so that the mean over examples is the mean over words."""
        labels = torch.tensor(flat(answers))
        if self.kind == QUESTIONS:
            marks = torch.stack([labels & FIRST, (labels & LAST) // LAST], dim=1)
            sizes = [len(row) for row in answers]  # type: ignore[arg-type]  # marks are lists
            parts = zip(logits.split_with_sizes(sizes), marks.split_with_sizes(sizes), strict=True)
            return tuple(-float((own.log_softmax(0) * each).sum()) / 2 for own, each in parts)
        if self.is_regression:
            each = (logits.squeeze(-1) - self._standardised(labels)).square()
        elif self.kind == "multi_label":
            truth = labels.view_as(logits).to(logits.dtype)
            each = nn.functional.binary_cross_entropy_with_logits(logits, truth, reduction="none").mean(1)
        else:
            each = nn.functional.cross_entropy(logits, labels, reduction="none")
        if self.kind == "tagging":
            n_words = [len(row) for row in answers]  # type: ignore[arg-type]  # tags are lists
            weight = len(answers) / len(labels)
            each = torch.stack([part.sum() * weight for part in each.split_with_sizes(n_words)])
        return tuple(each.tolist())

    def score(self, logits: Tensor, labels: Answers) -> float:
        """The metric of outputs `(n, num_labels)`, of tags those of all words.

        Raises:
            Diverged: An output is not a finite number.
            TaskError: A metric of the user's own fails.
        """
        target = (self.mean, self.scale) if self.is_regression else None
        return score_logits(self._metric, logits, labels, self.kind, self._names, target)

    def _standardised(self, targets: Tensor) -> Tensor:
        return ((targets - self.mean) / self.scale).float()  # in the targets' float64: large offsets cancel


def score_answers(metric: str, logits: Tensor, encoded: EncodedSpans) -> tuple[float, list[float]]:
    """A metric of a model's answers.

    Args:
        metric: A name of the table, or `module:function`, which gets texts and references.
        logits: Outputs `(candidates of all examples, 2)`.
        encoded: What the model read.

    Returns:
        The score, and the numbers whose mean it is, one for each example; none for a function.

    Raises:
        Diverged: An output is not a finite number.
        TaskError: A metric of the user's own fails.
    """
    require_finite(logits)
    texts = [span.text for span in best_spans(logits, encoded)]
    if is_own(metric):
        return call_own(metric, texts, encoded.references), []
    each = OF_ANSWERS[metric](texts, encoded.references)
    return sum(each) / len(each), each


def score_logits(
    metric: str,
    logits: Tensor,
    labels: Answers,
    kind: Kind,
    names: Sequence[str],
    target: tuple[float, float] | None,
) -> float:
    """A metric of a model's outputs.

    Args:
        metric: A name of the table, or `module:function`.
        logits: Outputs, `(n, num_labels)`, of tags those of all words.
        labels: What is right for each example.
        kind: Kind of the task.
        names: Its classes or tags; none for a regression.
        target: Mean and scale by which a regression's targets are standardised; None for classes.

    Raises:
        Diverged: An output is not a finite number.
        TaskError: A metric of the user's own fails.
    """
    predictions = predictions_of(logits, kind, [len(row) for row in labels] if kind == "tagging" else ())  # type: ignore[arg-type]  # tags are lists
    if not is_own(metric):
        return score(metric, predictions, labels, len(names), names=names)
    if target is not None:
        mean, scale = target
        logits = logits.squeeze(-1).double() * scale + mean
    if kind == "tagging":
        predictions, labels = flat(predictions), flat(labels)
    return score(metric, predictions, labels, len(names), logits.tolist())


def class_weights(task: Task) -> Tensor:
    """Weights of the classes by their frequencies in train, n / (classes x examples of the class), as scikit-learn's.

    Returns:
        `(classes,)`; 1 for a class without examples.
    """
    counts = torch.bincount(torch.tensor(task.train.labels, dtype=torch.int64), minlength=len(task.labels))
    return torch.where(counts > 0, counts.sum() / (len(task.labels) * counts.clamp(min=1)), 1.0).float()


@torch.inference_mode()
def logits_of(
    model: nn.Module,
    split: EncodedSplit,
    *,
    batch_size: int,
    device: torch.device,
    autocast: torch.dtype | None,
    part: tuple[int, int] = (0, 1),
) -> Tensor:
    """The model's outputs on a split; the model is left in evaluation mode.

    Args:
        model: Gives `.logits` `(batch, num_labels)`.
        split: The split, whose labels are not used.
        batch_size: Examples per forward pass.
        device: Where the model is.
        autocast: Reduced precision of the forward pass, or None.
        part: Index of this process and number of processes that share the work. Rows of other processes are 0, so that
            the sum over processes is complete.

    Returns:
        `(n, num_labels)` in float32 on the CPU, in the order of the examples; of tags one row for each word that has a
        label, of answers one for each candidate.
    """
    model.eval()
    index, n_parts = part
    rows: Tensor | None = None
    starts: list[int] = []
    for number, (indices, batch) in enumerate(eval_batches(split, batch_size)):
        if number % n_parts != index and number > 0:
            continue  # every process runs the first batch, to know the number of outputs
        logits, labels = forward(model, batch, device, autocast)
        logits = logits.float().cpu()
        places = indices
        if logits.dim() == 3:
            starts = starts or _starts(split)
            known = labels.cpu() != IGNORED
            logits = logits[known if known.dim() == 2 else known[..., 0]]
            places = [at for i in indices for at in range(starts[i], starts[i + 1])]
        if rows is None:
            rows = torch.zeros(starts[-1] if starts else len(split), logits.shape[1])
        if number % n_parts == index:
            rows[places] = logits
    assert rows is not None, "an evaluation needs examples"
    return rows


def _starts(split: EncodedSplit) -> list[int]:
    """The number of labelled words before each example, and of all."""
    return [0, *accumulate(len(row) for row in split.labels)]  # type: ignore[arg-type]  # tags are lists


def require_finite(logits: Tensor) -> None:
    """Refuse outputs that are no numbers.

    Raises:
        Diverged: An output is not finite.
    """
    if not bool(torch.isfinite(logits).all()):
        raise Diverged("the model's outputs are not finite on the evaluation data")


def predictions_of(logits: Tensor, kind: str, n_words: Sequence[int] = ()) -> list[Any]:
    """Predictions for logits `(n, num_labels)`.

    Args:
        logits: The outputs.
        kind: Kind of the task.
        n_words: Number of words of each example, for tags.

    Returns:
        For each example its class, its standardised target, a list of the tags of its words, or a list with a 1 for
        each class whose probability is at least a half and a 0 for the others.

    Raises:
        Diverged: An output is not a finite number.
    """
    require_finite(logits)
    if kind == "regression":
        return list(logits.squeeze(-1).tolist())
    if kind == "multi_label":
        return list((logits >= 0).int().tolist())
    best = logits.argmax(-1)
    return [own.tolist() for own in best.split_with_sizes(list(n_words))] if kind == "tagging" else list(best.tolist())
