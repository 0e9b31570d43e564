"""Cost axes of a front: every measure of a trial except the score."""

from __future__ import annotations

import math
from dataclasses import dataclass

from peftsearch.errors import ConfigError, unknown_name
from peftsearch.report.pareto.points import Point
from peftsearch.study.objectives import OBJECTIVES, SCORE, Objective


@dataclass(frozen=True, slots=True)
class Axis:
    """The cost axis of a front."""

    objective: Objective

    @property
    def name(self) -> str:
        """Name for `--x`."""
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
        """Unit of shown costs."""
        return self.objective.chart_unit

    @property
    def scale(self) -> float:
        """Factor from the shown unit to the unit of the measure."""
        return self.objective.chart_scale

    @property
    def log(self) -> bool:
        """Whether ratios matter rather than differences."""
        return self.objective.log

    def place(self, cost: float) -> float:
        """Position of a cost on the axis: in decades on a log axis, otherwise in the shown unit."""
        return math.log10(cost) if self.log else cost / self.scale

    def cost_at(self, place: float) -> float:
        """The cost at a position on the axis."""
        return 10**place if self.log else place * self.scale

    def cost(self, point: Point) -> float:
        """Cost of a point, in the unit of the measure."""
        return point.measures[self.measure]

    def shown(self, point: Point) -> float:
        """Cost of a point, in the shown unit."""
        return self.cost(point) / self.scale

    def holds(self, point: Point) -> bool:
        """Whether a point can be shown on the axis; a cost of zero, as of the head alone, cannot on a log axis."""
        return not self.log or self.cost(point) > 0

    @property
    def title(self) -> str:
        """Title of the axis: label and unit."""
        return f"{self.label} ({self.unit})" if self.unit else self.label

    def show(self, cost: float) -> str:
        """Format a cost with its unit."""
        shown = f"{cost / self.scale:,.0f}" if self.scale == 1 else f"{cost / self.scale:,.4g}"
        return f"{shown} {self.unit}".strip()


AXES = {name: Axis(objective) for name, objective in OBJECTIVES.items() if name != SCORE}


def axis_of(x: str) -> Axis:
    """Find an axis by the name of its cost or its measure.

    Raises:
        ConfigError: No cost has this name.
    """
    found = AXES.get(x) or next((a for a in AXES.values() if a.measure == x), None)
    if found is None:
        raise ConfigError(f"--x: {unknown_name('cost', x, AXES)}")
    return found
