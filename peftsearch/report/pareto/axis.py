"""The costs that a front can have as its axis: every measure of a trial but the score."""

from __future__ import annotations

import math
from dataclasses import dataclass

from peftsearch.errors import ConfigError, unknown_name
from peftsearch.report.pareto.points import Point
from peftsearch.study.objectives import OBJECTIVES, SCORE, Objective


@dataclass(frozen=True, slots=True)
class Axis:
    """A cost at the axis of a front."""

    objective: Objective

    @property
    def name(self) -> str:
        """The name that `--x` takes."""
        return self.objective.name

    @property
    def measure(self) -> str:
        """Name of the measure in the trials."""
        return self.objective.measure

    @property
    def label(self) -> str:
        """Name without a unit."""
        return self.objective.label

    @property
    def unit(self) -> str:
        """Unit in which costs are shown."""
        return self.objective.chart_unit

    @property
    def scale(self) -> float:
        """Values of the measure per unit that is shown."""
        return self.objective.chart_scale

    @property
    def log(self) -> bool:
        """Whether ratios matter rather than differences."""
        return self.objective.log

    def place(self, cost: float) -> float:
        """Where a cost lies on the axis: in decades on a log axis, else in the unit that is shown."""
        return math.log10(cost) if self.log else cost / self.scale

    def cost_at(self, place: float) -> float:
        """The cost that lies there."""
        return 10**place if self.log else place * self.scale

    def cost(self, point: Point) -> float:
        """What a point costs, in the measure's own unit."""
        return point.measures[self.measure]

    def shown(self, point: Point) -> float:
        """What a point costs, in the unit that is shown."""
        return self.cost(point) / self.scale

    def holds(self, point: Point) -> bool:
        """Whether a point has a place: what costs nothing, as the head alone, has none on a log axis."""
        return not self.log or self.cost(point) > 0

    @property
    def title(self) -> str:
        """What is written at the axis."""
        return f"{self.label} ({self.unit})" if self.unit else self.label

    def show(self, cost: float) -> str:
        """The cost with its unit."""
        shown = f"{cost / self.scale:,.0f}" if self.scale == 1 else f"{cost / self.scale:,.4g}"
        return f"{shown} {self.unit}".strip()


AXES = {name: Axis(objective) for name, objective in OBJECTIVES.items() if name != SCORE}


def axis_of(x: str) -> Axis:
    """The cost of this name; the measure's own name is taken too.

    Raises:
        ConfigError: There is none.
    """
    found = AXES.get(x) or next((a for a in AXES.values() if a.measure == x), None)
    if found is None:
        raise ConfigError(f"--x: {unknown_name('cost', x, AXES)}")
    return found
