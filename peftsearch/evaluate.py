"""Scores of a model on a split: predictions batch by batch, then the task's metric."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from peftsearch.generation import score_pairs
from peftsearch.tasks.encode import EncodedSplit, eval_batches
from peftsearch.tasks.metrics import score
from peftsearch.tasks.pairs import EncodedPairs
from peftsearch.tasks.task import Task
from peftsearch.training import Diverged, forward


class Objective:
    """Loss and score of one task.

    Regression targets are standardised with the training split's mean and deviation; the correlations that score
    them do not change by it.

    Args:
        task: Its kind, metric and training labels.
    """

    def __init__(self, task: Task) -> None:
        self._metric = task.metric
        self._regression = task.kind == "regression"
        self._n_classes = len(task.labels)
        targets = torch.tensor(task.train.labels, dtype=torch.float64) if self._regression else torch.zeros(1)
        self._mean = float(targets.mean())
        self._scale = max(float(targets.std(correction=0)), 1e-12)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy, or mean squared error of the standardised target.

        Args:
            logits: `(batch, num_labels)`, or `(batch, seq, vocabulary)` of a generation.
            labels: `(batch,)`, class indices or targets; `(batch, seq)`, the tokens that are learnt.
        """
        if self._regression:
            targets = ((labels - self._mean) / self._scale).float()  # in the labels' float64: large offsets cancel
            return nn.functional.mse_loss(logits.squeeze(-1), targets)
        return nn.functional.cross_entropy(logits.flatten(0, -2), labels.flatten())

    @torch.inference_mode()
    def score(
        self,
        model: nn.Module,
        split: EncodedSplit,
        *,
        batch_size: int,
        device: torch.device,
        autocast: torch.dtype | None,
    ) -> tuple[float, Sequence[float]]:
        """The task's metric on a split, and which predictions are right; the model is left in evaluation mode.

        Which are right is empty for metrics that are no mean over examples; of a generation it is what `score_pairs`
        says.

        Raises:
            Diverged: An output is not a finite number.
        """
        if isinstance(split, EncodedPairs):
            return score_pairs(model, split, self._metric, batch_size=batch_size, device=device, autocast=autocast)
        model.eval()
        predictions: list[float] = [0.0] * len(split.labels)
        for indices, batch in eval_batches(split, batch_size):
            logits, _ = forward(model, batch, device, autocast)
            if not bool(torch.isfinite(logits).all()):
                raise Diverged("the model's outputs are not finite on the evaluation data")
            values = logits.float().squeeze(-1) if self._regression else logits.argmax(-1)
            for index, value in zip(indices, values.tolist(), strict=True):
                predictions[index] = value
        right = [p == t for p, t in zip(predictions, split.labels, strict=True)] if self._metric == "accuracy" else []
        return score(self._metric, predictions, split.labels, self._n_classes), right
