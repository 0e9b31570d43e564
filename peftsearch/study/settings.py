"""The settings of a study: what `settings.yaml` holds, written and read in one typed form.

Equal settings resume a study, others are refused. Its parts that rooms above this one define (strategy, training,
options) are plain values here, as `to_plain` gives them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

OWN_STORAGE = "study.db"
"""The storage of a study that is in its folder."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StudySettings:
    """What a study is about."""

    format: Literal["peftsearch-study/1"] = "peftsearch-study/1"
    model: str = ""
    """Hub id or folder of the backbone."""
    revision: str = ""
    """Commit or fingerprint of its weights."""
    anatomy: str = ""
    """Digest of its blocks: the same model may be described by hand in several ways."""
    quantize: str | None = None
    task: str = ""
    task_source: str = ""
    task_fingerprint: str = ""
    metric: str = "score"
    budget: str = ""
    """What the user wrote: `0.1%`."""
    budget_params: int = 0
    """Trainable parameters of the budget."""
    count_head: bool = False
    space: str = ""
    dimensions: dict[str, Any] = field(default_factory=dict)
    """Choices of each dimension, or where they are many their number and a digest."""
    rates: dict[str, float] = field(default_factory=dict)
    """What each method multiplies the base learning rate by."""
    strategy: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    autocast: str = "none"
    """Reduced precision of the forward pass."""
    objectives: tuple[str, ...] = ("score",)
    """Names of the objectives, in the order of a trial's values."""
    constraints: dict[str, float] = field(default_factory=dict)
    """Limits in force."""
    seed: int = 0
    storage: str = OWN_STORAGE
    """Optuna storage URL without a password."""
    id: str = ""
    """Distinguishes studies of one name in a shared storage; each folder has its own."""
    options: dict[str, Any] = field(default_factory=dict)
    """What the user asked for; see `searcher.options`."""

    @property
    def in_folder(self) -> bool:
        """Whether the storage is in the study's folder."""
        return self.storage == OWN_STORAGE


NOT_COMPARED = frozenset({"id", "options"})
"""Settings in which studies of equal commands differ."""


def first_difference(there: Mapping[str, Any], here: Mapping[str, Any]) -> tuple[str, Any, Any] | None:
    """Find the first setting in which two studies differ, in nested settings too.

    Args:
        there: Stored settings, as plain values.
        here: The settings that are asked for.

    Returns:
        The setting as a dotted name, its value there and here; None where they are equal.
    """
    for key in dict.fromkeys([*there, *here]):
        one, other = there.get(key), here.get(key)
        if key in NOT_COMPARED or one == other:
            continue
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            inner = first_difference(one, other)
            if inner is not None:
                return f"{key}.{inner[0]}", *inner[1:]
            continue
        return key, one, other
    return None
