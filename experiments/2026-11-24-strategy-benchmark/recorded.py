"""The recorded table of one task, the scores of `sensitivity`, and how much of a score is noise."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, is_dataclass
from functools import cached_property
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

import numpy as np
import pandas as pd
from scipy.stats import spearmanr
from table_space import SPACE

from peftsearch.backbone.anatomy import Backbone
from peftsearch.design.architecture import Architecture
from peftsearch.design.budget import Budget
from peftsearch.design.fitting import fit

HERE = Path(__file__).parent
TASKS = ("trec", "sst2")
LOW, FULL = 24, 60


@dataclass(frozen=True)
class Table:
    """Scores by point, in the drawn order of the recording; a failed training is NaN."""

    task: str
    low: pd.Series
    """After a training of 24 steps, seed 0."""
    full: pd.Series
    """After a training of 60 steps, seed 0."""
    low_again: pd.Series
    """As `low`, seed 1; a part of the points."""
    full_again: pd.Series
    """As `full`, seed 1; a part of the points."""
    n_params: pd.Series

    @property
    def n_failed(self) -> int:
        """Points whose training of 60 steps failed."""
        return int(self.full.isna().sum())

    @cached_property
    def pairs(self) -> pd.DataFrame:
        """60-step scores of the points that have both seeds: columns 0 and 1."""
        both = pd.concat([self.full, self.full_again], axis=1, keys=[0, 1])
        return both.dropna()

    def noise(self) -> Noise:
        """Estimate the parts of the variance of a 60-step score."""
        return Noise.of(self.pairs[0].to_numpy(), self.pairs[1].to_numpy())


@dataclass(frozen=True)
class Noise:
    """A score is the design's own level plus what the seed does to it; a shift of all designs alike is left out."""

    n: int
    """Designs with two seeds."""
    seed_std: float
    """Standard deviation between seeds of one design."""
    design_std: float
    """Standard deviation between designs, the seeds' part taken off."""
    residuals: np.ndarray
    """Draws of the noise: differences between seeds / sqrt(2), both ways, those upwards cut at two robust deviations,
    since a training may collapse (and one seed of some did) but cannot excel as much."""
    rank_correlation: float
    """Spearman's, between the seeds: what a few collapsed trainings do not decide."""

    @property
    def reliability(self) -> float:
        """Share of the variance of single scores that lies between designs (intraclass correlation)."""
        total = self.design_std**2 + self.seed_std**2
        return self.design_std**2 / total if total else 0.0

    @classmethod
    def of(cls, first: np.ndarray, second: np.ndarray) -> Noise:
        """From two scores of each design: within = var(difference) / 2, between = covariance."""
        difference = first - second
        within = float(np.var(difference, ddof=1)) / 2
        between = max(0.0, float(np.cov(first, second)[0, 1]))
        halves = (difference - np.median(difference)) / np.sqrt(2)
        most = 2 * 1.4826 * float(np.median(np.abs(halves)))
        residuals = np.concatenate([halves, -halves]).clip(max=most)
        return cls(
            n=len(first),
            seed_std=within**0.5,
            design_std=between**0.5,
            residuals=residuals - residuals.mean(),
            rank_correlation=float(spearmanr(first, second).statistic),
        )


def load_table(path: Path) -> Table:
    """Read what `record.py` wrote; only points with both fidelities of seed 0 are in it."""
    data = pd.read_csv(path)
    data = data[data["point"].astype(str).str.isdigit()]  # a line that is being written
    series = {
        (seed, steps): part.drop_duplicates("point").set_index("point")["score"].astype(float)
        for (seed, steps), part in data.groupby(["seed", "steps"])
    }
    none = pd.Series(dtype=float)
    full = series[0, FULL]
    full = full[full.index.isin(series[0, LOW].index)]
    return Table(
        task=path.stem,
        low=series[0, LOW].reindex(full.index),
        full=full,
        low_again=series.get((1, LOW), none).reindex(full.index),
        full_again=series.get((1, FULL), none).reindex(full.index),
        n_params=data.drop_duplicates("point").set_index("point")["n_params"].reindex(full.index),
    )


@dataclass(frozen=True)
class Measured:
    """What `measure_sensitivity.py` wrote."""

    backbone: Backbone
    budget: Budget
    scores: dict[str, dict[tuple[str, int, str], float]]
    """By task."""

    @cached_property
    def architectures(self) -> list[Architecture]:
        """What every point of the space becomes."""
        return [fit(SPACE.design(params), self.backbone, self.budget) for params in SPACE.points()]


def load_measured(path: Path = HERE / "sensitivity.json") -> Measured:
    """Read the scores and the anatomy that designs are fitted to."""
    data = json.loads(path.read_text())
    scores = {task: {(s, int(b), m): float(v) for s, b, m, v in data[task]} for task in TASKS}
    return Measured(backbone=_build(Backbone, data["backbone"]), budget=_build(Budget, data["budget"]), scores=scores)


def _build(kind: Any, data: Any) -> Any:
    """A dataclass from what `asdict` and JSON made of it."""
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        return kind(**{f.name: _build(hints[f.name], data[f.name]) for f in fields(kind)})
    if get_origin(kind) is tuple:
        return tuple(_build(get_args(kind)[0], item) for item in data)
    if get_origin(kind) is UnionType:
        return None if data is None else _build(get_args(kind)[0], data)
    return data
