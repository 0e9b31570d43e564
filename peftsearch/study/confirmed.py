"""A confirmed design with its scores: the one form that the verdict, the tables, best.yaml and the report share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from peftsearch.design.architecture import Architecture
from peftsearch.design.design import Design
from peftsearch.units import Scores


@dataclass(frozen=True, kw_only=True, slots=True)
class Confirmed:
    """A baseline, a design of the search or a reference, from its choice to its scores."""

    name: str
    """Baseline's or reference's name, or `trial 17` of the search."""
    baseline: bool = False
    reference: bool = False
    """Whether it trains the model's own weights, outside the budget, and is never picked."""
    family: str = ""
    """A baseline's name without learning rate and share of the budget; empty for designs of the search."""
    design: Design | None = None
    """None for references."""
    architecture: Architecture | None = None
    """The design with its sizes; None for references, and where the studies alone are read."""
    detail: str = ""
    """The design in one line, or why there is no score."""
    n_params: int | None = None
    """Trainable parameters, excluding the task head; None where the design was never sized."""
    n_changed: int | None = None
    """Parameters in which the result differs from the model, added ones included; None where nobody counted them."""
    share: float | None = None
    """Share of the budget that is used."""
    search_score: float | None = None
    """Validation score of the short training in the search; one seed."""
    validation: Scores = field(default_factory=Scores)
    """Validation scores over seeds; empty when every training failed, or before any."""
    test: Scores = field(default_factory=Scores)
    """Test scores over seeds; empty where the test split was not read."""
    tasks: Mapping[str, Scores] = field(default_factory=dict)
    """Validation scores of each task, where there are several."""
    hits: tuple[float, ...] = ()
    """Share of the seeds whose prediction is right, or mean score, for each validation example; empty without such."""

    @property
    def mean(self) -> float:
        """Mean validation score over seeds; minus infinity without scores."""
        return self.validation.mean

    @property
    def size(self) -> int:
        """Trainable parameters; 0 where they are not known."""
        return self.n_params or 0

    @property
    def title(self) -> str:
        """The name, marked where it is a baseline or a reference."""
        return self.name + (" (baseline)" if self.baseline else " (reference)" if self.reference else "")
