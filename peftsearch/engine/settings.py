"""Training settings that all trials of a study share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from peftsearch.fields import Fields, above, at_least, one_of

HEADS = ("probe", "random")
CLASS_WEIGHTS = ("none", "balanced")
RANDOM_HEAD_RATE = 1e-2
"""Learning rate of a head that starts from random values, unless another is given."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingSettings:
    """Settings of every training; equal for all trials of a study."""

    learning_rate: float = 5e-3
    """Base learning rate, which each method multiplies by its own scale."""
    head: str = "probe"
    """Start of the task head: `probe`, fitted on the frozen features, or `random`."""
    head_learning_rate: float = 1e-3
    """Learning rate of the task head."""
    batch_size: int = 16
    """Examples per optimizer step."""
    warmup_share: float = 0.1
    """Share of the steps over which the rate rises linearly from 0; then it falls linearly to 0."""
    max_grad_norm: float = 1.0
    """Global norm to which gradients are clipped."""
    max_length: int = 128
    """Most tokens of a text; longer texts are cut."""
    dropout: bool = False
    """Whether the dropout of the frozen backbone is on in training."""
    class_weights: str = "none"
    """Weights of the classes in the training loss: `none`, or `balanced`, n / (classes x examples of the class)."""
    label_smoothing: float = 0.0
    """Share of the target's probability that is spread over all classes in the training loss (arXiv 1512.00567)."""
    accumulate: int = 1
    """Parts that each process cuts its share of a batch into, to save memory; the result differs by rounding alone."""
    gradient_checkpointing: bool = False
    """Whether blocks are computed anew in the backward pass, which saves memory for a third more time."""

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], where: str = "training settings") -> TrainingSettings:
        """Read settings; absent fields keep their defaults.

        Raises:
            ConfigError: The mapping has faults; lists all of them.
        """
        fields = Fields(where, data)
        d = cls()
        settings = cls(
            learning_rate=fields.take("learning_rate", float, d.learning_rate, above(0)),
            head=fields.take("head", str, d.head, one_of(HEADS)),
            head_learning_rate=fields.take("head_learning_rate", float, d.head_learning_rate, above(0)),
            batch_size=fields.take("batch_size", int, d.batch_size, at_least(1)),
            warmup_share=fields.take("warmup_share", float, d.warmup_share, at_least(0)),
            max_grad_norm=fields.take("max_grad_norm", float, d.max_grad_norm, above(0)),
            max_length=fields.take("max_length", int, d.max_length, at_least(4)),
            dropout=fields.take("dropout", bool, d.dropout),
            class_weights=fields.take("class_weights", str, d.class_weights, one_of(CLASS_WEIGHTS)),
            label_smoothing=fields.take("label_smoothing", float, d.label_smoothing, at_least(0)),
            accumulate=fields.take("accumulate", int, d.accumulate, at_least(1)),
            gradient_checkpointing=fields.take("gradient_checkpointing", bool, d.gradient_checkpointing),
        )
        if settings.label_smoothing >= 1:
            fields.fault("'label_smoothing' must be below 1")
        if settings.warmup_share > 1:
            fields.fault("'warmup_share' must be at most 1")
        fields.finish()
        return settings
