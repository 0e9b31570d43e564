"""Losses and scores of a model on a split: predictions batch by batch, then the mean loss and the task's metric."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from peftsearch.engine.evaluation import Evaluation
from peftsearch.engine.generation import log_likelihoods, score_pairs
from peftsearch.engine.loop import forward
from peftsearch.engine.settings import TrainingSettings
from peftsearch.errors import ConfigError, Diverged
from peftsearch.tasks.encoding.batches import eval_batches
from peftsearch.tasks.encoding.encoded import EncodedSplit
from peftsearch.tasks.encoding.pairs import EncodedPairs
from peftsearch.tasks.metrics import score
from peftsearch.tasks.own_metric import is_own
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
        if settings is not None and settings.class_weights != "none" and task.kind != "classification":
            raise ConfigError(f"--class-weights {settings.class_weights}: a {task.kind} has no classes; leave it out")
        if settings is not None and settings.label_smoothing and task.kind == "regression":
            raise ConfigError("--label-smoothing: a regression has no classes; leave it out")
        self._smoothing = 0.0 if settings is None else settings.label_smoothing
        weighted = settings is not None and settings.class_weights == "balanced" and task.kind == "classification"
        self._weights = class_weights(task) if weighted else None
        self.is_regression = task.kind == "regression"
        """Whether the task has targets instead of classes."""
        self.n_outputs = task.num_labels
        """Outputs of the head: the number of classes, 1 for a target, 0 without a head."""
        self._n_classes = len(task.labels)
        targets = torch.tensor(task.train.labels, dtype=torch.float64) if self.is_regression else torch.zeros(1)
        self.mean = float(targets.mean())
        """Mean of the training targets; 0 for classes."""
        self.scale = max(float(targets.std(correction=0)), 1e-12)
        """Standard deviation of the training targets; 1e-12 at least."""

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Loss to train: cross-entropy, weighted and smoothed as the settings say, or the standardised squared error.

        Args:
            logits: `(batch, num_labels)`, or `(batch, seq, vocabulary)` for generation.
            labels: Class indices or targets `(batch,)`, or the tokens to learn `(batch, seq)`.
        """
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
            found, right = score_pairs(
                model, split, self._metric, batch_size=batch_size, device=device, autocast=autocast, sums=sums
            )
            return Evaluation(losses=losses, score=found, right=right)
        logits = logits_of(model, split, batch_size=batch_size, device=device, autocast=autocast)
        predictions = predictions_of(logits, regression=self.is_regression)
        labels = torch.tensor(split.labels)
        if self.is_regression:
            each = (logits.squeeze(-1) - self._standardised(labels)).square()
        else:
            each = nn.functional.cross_entropy(logits, labels, reduction="none")
        right = [p == t for p, t in zip(predictions, split.labels, strict=True)] if self._metric == "accuracy" else []
        value = self.score(logits, split.labels) if with_score else None
        return Evaluation(losses=tuple(each.tolist()), score=value, right=right)

    def score(self, logits: Tensor, labels: Sequence[int] | Sequence[float]) -> float:
        """The metric of outputs `(n, num_labels)`.

        Raises:
            Diverged: An output is not a finite number.
            TaskError: A metric of the user's own fails.
        """
        target = (self.mean, self.scale) if self.is_regression else None
        return score_logits(self._metric, logits, labels, self._n_classes, target)

    def _standardised(self, targets: Tensor) -> Tensor:
        return ((targets - self.mean) / self.scale).float()  # in the targets' float64: large offsets cancel


def score_logits(
    metric: str,
    logits: Tensor,
    labels: Sequence[int] | Sequence[float],
    n_classes: int,
    target: tuple[float, float] | None,
) -> float:
    """A metric of a model's outputs.

    Args:
        metric: A name of the table, or `module:function`.
        logits: Outputs, `(n, num_labels)`.
        labels: Class indices or targets.
        n_classes: Number of classes; 0 for a regression.
        target: Mean and scale by which a regression's targets are standardised; None for classes.

    Raises:
        Diverged: An output is not a finite number.
        TaskError: A metric of the user's own fails.
    """
    predictions = predictions_of(logits, regression=target is not None)
    if not is_own(metric):
        return score(metric, predictions, labels, n_classes)
    if target is not None:
        mean, scale = target
        logits = logits.squeeze(-1).double() * scale + mean
    return score(metric, predictions, labels, n_classes, logits.tolist())


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
        `(n, num_labels)` in float32 on the CPU, in the order of the examples.
    """
    model.eval()
    index, n_parts = part
    rows: Tensor | None = None
    for number, (indices, batch) in enumerate(eval_batches(split, batch_size)):
        if number % n_parts != index and number > 0:
            continue  # every process runs the first batch, to know the number of outputs
        logits = forward(model, batch, device, autocast)[0].float().cpu()
        rows = torch.zeros(len(split), logits.shape[1]) if rows is None else rows
        if number % n_parts == index:
            rows[indices] = logits
    assert rows is not None, "an evaluation needs examples"
    return rows


def predictions_of(logits: Tensor, *, regression: bool) -> list[float]:
    """Predictions for logits `(n, num_labels)`: the class, or the standardised target, of each row.

    Raises:
        Diverged: An output is not a finite number.
    """
    if not bool(torch.isfinite(logits).all()):
        raise Diverged("the model's outputs are not finite on the evaluation data")
    values: list[float] = (logits.squeeze(-1) if regression else logits.argmax(-1)).tolist()
    return values
