"""A confirmed design with its scores, in the form that the verdict, the tables, best.yaml and the report share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from peftsearch.design.architecture import Architecture
from peftsearch.design.design import Design
from peftsearch.study.best import StoredRow
from peftsearch.units import Scores

_SAME = tuple(f.name for f in fields(StoredRow) if f.name not in ("validation", "test", "tasks"))
"""Fields of a row of `best.yaml` that a confirmed design has in the same form."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Confirmed:
    """A baseline, a design of the search or a reference, from its choice to its scores."""

    name: str
    """Baseline's or reference's name, or `trial 17` of the search."""
    baseline: bool = False
    reference: bool = False
    """Whether this is a reference: it trains the model's own weights, outside the budget, and is never picked."""
    family: str = ""
    """A baseline's name without learning rate and share of the budget; empty for designs of the search."""
    design: Design | None = None
    """The design; None for references."""
    architecture: Architecture | None = None
    """The design with its sizes; None for references, and if only the studies are read."""
    detail: str = ""
    """The design in one line, or the reason why there is no score."""
    n_params: int | None = None
    """Trainable parameters, excluding the task head; None if the design was never sized."""
    n_changed: int | None = None
    """Parameters in which the tuned model differs from the pretrained one, or that are new; None if not counted."""
    share: float | None = None
    """Share of the budget that is used."""
    search_score: float | None = None
    """Validation score of the last training in the search; one seed."""
    search_loss: float | None = None
    """Mean validation loss of the last training in the search; one seed."""
    seeds: tuple[int, ...] = ()
    """Seeds of the scores, in their order."""
    search_seed: int | None = None
    """Seed of the training in the search that chose the design."""
    validation: Scores = field(default_factory=Scores)
    """Validation scores over seeds; empty when every training failed, or before any."""
    test: Scores = field(default_factory=Scores)
    """Scores over seeds on the reported examples: the test split, or what was set aside; empty if not scored."""
    tasks: Mapping[str, Scores] = field(default_factory=dict)
    """Validation scores by task, for runs with several tasks."""
    validation_hits: tuple[float, ...] = ()
    """For each validation example, share of the seeds that predict it right, or mean score; empty if not recorded."""
    hits: tuple[float, ...] = ()
    """The same on each reported example."""
    losses: tuple[float, ...] = ()
    """Mean loss over the seeds on each reported example; empty if not recorded."""
    report_loss: Scores = field(default_factory=Scores)
    """Mean loss on the reported examples over seeds."""
    costs: Mapping[str, float] = field(default_factory=dict)
    """What a training step and a forward pass cost, by names in words, in units that equal names share."""
    exports: tuple[str, ...] | None = None
    """Targets of an export that need no peftsearch: peft, merged; None where the design is not known."""
    n_collapsed: int = 0
    """Trainings that collapsed and were tried again at a lower rate."""

    @classmethod
    def of(cls, row: StoredRow) -> Confirmed:
        """A row of `best.yaml`."""
        return cls(
            **{name: getattr(row, name) for name in _SAME},
            validation=Scores.from_dict(row.validation),
            test=Scores.from_dict(row.test),
            tasks={name: Scores.from_dict(scores) for name, scores in row.tasks.items()},
        )

    def row(self, exports: tuple[str, ...] | None) -> StoredRow:
        """The design as a row of `best.yaml`.

        Args:
            exports: Targets of an export that need no peftsearch; None where the design is not known.
        """
        same: dict[str, Any] = {name: getattr(self, name) for name in _SAME} | {"exports": exports}
        return StoredRow(
            **same,
            validation=self.validation.to_dict(),
            test=self.test.to_dict(),
            tasks={name: scores.to_dict() for name, scores in self.tasks.items()},
        )

    @property
    def mean(self) -> float:
        """Mean validation score over seeds; minus infinity without scores."""
        return self.validation.mean

    @property
    def report(self) -> Scores:
        """Scores on the reported examples, by which claims are tested."""
        return self.test

    @property
    def size(self) -> int:
        """Trainable parameters; 0 if unknown."""
        return self.n_params or 0

    @property
    def title(self) -> str:
        """The name, marked if it is a baseline or a reference."""
        return self.name + (" (baseline)" if self.baseline else " (reference)" if self.reference else "")
