"""The costs that a front can have as its axis: every measure of a trial but the score."""

from __future__ import annotations

import math
from dataclasses import dataclass

from peftsearch.errors import ConfigError, unknown_name
from peftsearch.report.pareto.points import Point


@dataclass(frozen=True, kw_only=True, slots=True)
class Axis:
    """A cost."""

    name: str
    """As `--x` takes it."""
    measure: str
    """Name of the measure in the trials."""
    label: str
    unit: str = ""
    scale: float = 1.0
    """A value is shown in units of this many."""
    log: bool = False
    """Whether ratios count rather than differences: for the picture, the knee and the hypervolume."""

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


AXES = {
    axis.name: axis
    for axis in (
        Axis(name="params", measure="params", label="trainable parameters", log=True),
        Axis(name="changed", measure="changed_params", label="changed parameters", log=True),
        Axis(name="train_flops", measure="train_flops", label="FLOPs of a training step", unit="GFLOP", scale=1e9),
        Axis(name="inference_flops", measure="inference_flops", label="FLOPs of inference", unit="GFLOP", scale=1e9),
        Axis(name="disk", measure="disk_bytes", label="tuned part on disk", unit="kB", scale=1e3, log=True),
        Axis(name="step_time", measure="step_s", label="training step", unit="ms", scale=1e-3),
        Axis(name="memory", measure="peak_memory_bytes", label="peak memory in training", unit="MB", scale=1e6),
        Axis(name="latency", measure="latency_s", label="inference latency", unit="ms", scale=1e-3),
        Axis(name="merged_latency", measure="merged_latency_s", label="latency, merged", unit="ms", scale=1e-3),
    )
}


def axis_of(x: str) -> Axis:
    """The cost of this name; the measure's own name is taken too.

    Raises:
        ConfigError: There is none.
    """
    found = AXES.get(x) or next((a for a in AXES.values() if a.measure == x), None)
    if found is None:
        raise ConfigError(f"--x: {unknown_name('cost', x, AXES)}")
    return found
