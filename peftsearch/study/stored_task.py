"""The facts of a task in `best.yaml`, and what a saved head keeps of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


def task_inputs(*, pairs: bool, images: bool, template: str, max_new: int | None) -> dict[str, Any]:
    """What a model reads, as a saved head stores it.

    Args:
        pairs: Whether it reads pairs of texts.
        images: Whether it reads images.
        template: Of a generation, the text around prompts and completions.
        max_new: Of a generation, the most new tokens of a text.
    """
    written = {"template": template, "max_new_tokens": max_new} if template else {}
    return {"pairs": pairs, **({"images": True} if images else {}), **written}


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredTask:
    """The task of a run, or several together."""

    name: str = ""
    kind: str = ""
    source: str = ""
    """Source of the data, in words."""
    fingerprint: str = ""
    labels: tuple[str, ...] = ()
    metric: str = ""
    majority_score: float | None = None
    """Score of the majority class; None for generation."""
    n_train: int = 0
    n_validation: int = 0
    n_test: int = 0
    pairs: bool = False
    """Whether the model reads pairs of texts."""
    images: bool = False
    template: str = ""
    """Of a generation: the text around prompts and completions, or `chat`."""
    max_new: int | None = None
    """Most new tokens of a text, of a generation."""
    notes: tuple[str, ...] = ()
    """What was guessed of the data, and what was left out or cut."""
    mean: float | None = None
    """Mean of the training targets of a regression, by which they are standardised; None for other kinds."""
    scale: float | None = None
    """Standard deviation of these targets."""
    tasks: tuple[StoredTask, ...] = ()
    """The single tasks of a run with several; empty for one task."""

    @property
    def each(self) -> tuple[StoredTask, ...]:
        """The tasks of the run, one or several."""
        return self.tasks or (self,)

    def head(self) -> dict[str, Any]:
        """Facts about the task that a saved head stores."""
        known = {"name": self.name, "kind": self.kind, "labels": list(self.labels), "metric": self.metric}
        target = {} if self.mean is None else {"mean": self.mean, "scale": self.scale}
        inputs = task_inputs(pairs=self.pairs, images=self.images, template=self.template, max_new=self.max_new)
        return known | inputs | target if self.kind else {}
