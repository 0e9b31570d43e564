"""The result of a run: its verdict and its design, and the ways to use them."""

from __future__ import annotations

import html
import os
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftsearch.design.architecture import Architecture
from peftsearch.design.design import Design
from peftsearch.errors import ConfigError, ReportError
from peftsearch.study.best import Best, StoredRow, StoredVerdict, read_best
from peftsearch.tasks.own_metric import short_name
from peftsearch.units import Scores

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from torch import nn
    from transformers import TrainingArguments

    from peftsearch.api.trainer import Trainer
    from peftsearch.exporter.write import Format
    from peftsearch.injection.inject import Injection


class Result:
    """A finished run, read from its folder.

    Args:
        path: The run's folder.
        storage: The run's Optuna storage URL; empty for SQLite in the folder.

    Raises:
        ConfigError: The folder is not that of a finished run.
    """

    def __init__(self, path: str | os.PathLike[str], *, storage: str = "") -> None:
        self.path = Path(path)
        """The run's folder."""
        self._storage = storage
        _ = self.best

    @cached_property
    def best(self) -> Best:
        """The content of `best.yaml`."""
        return read_best(self.path)[1]

    @property
    def verdict(self) -> StoredVerdict:
        """The claim that the comparison supports: `kind`, `statement`, and what would settle it."""
        return self.best.verdict

    @property
    def name(self) -> str:
        """Name of the pick: `trial 14`, `lora`."""
        return self.best.name

    @property
    def design(self) -> Design:
        """The pick."""
        return Design.from_dict(self.best.design)

    @property
    def architecture(self) -> Architecture:
        """The pick with its exact sizes."""
        return Architecture.from_dict(self.best.architecture)

    @property
    def learning_rate(self) -> float:
        """Base learning rate of the pick."""
        return self.best.learning_rate

    @property
    def score(self) -> float | None:
        """Mean score of the pick on the examples that chose nothing; on validation without them."""
        scores = Scores.from_dict(self.best.scores.test or self.best.scores.validation)
        return scores.mean if scores.values else None

    @cached_property
    def trials(self) -> pd.DataFrame:
        """All trainings of the run, one row each."""
        import pandas as pd

        return pd.read_csv(self.path / "trials.csv")

    @cached_property
    def comparison(self) -> pd.DataFrame:
        """The confirmed designs, best first: parameters, and mean, standard deviation and number of their scores."""
        import pandas as pd

        return pd.DataFrame([_line(row) for row in self.best.comparison if row.validation])

    def inject(self, model: nn.Module, *, design: str | None = None, seed: int = 0) -> Injection:
        """Freeze a model and put the pick into it; see `peftsearch.inject`.

        Args:
            model: A transformers model of the kind that the run used.
            design: Name of another confirmed design: `trial 14`, `lora`.
            seed: Seed of the initial values.
        """
        from peftsearch.api.injecting import inject

        return inject(model, self.path, design=design, seed=seed)

    def trainer(
        self, args: TrainingArguments | None = None, *, design: str | None = None, seed: int = 0, **kwargs: Any
    ) -> Trainer:
        """A `peftsearch.Trainer` that trains the pick as the run did: its model, data, head, rates and schedule.

        Args:
            args: Arguments of the training; None takes the run's steps, batch size and precision. The learning rates
                are the run's in both cases.
            design: Name of another confirmed design.
            seed: Seed of the initial values.
            **kwargs: Further arguments for `transformers.Trainer`.

        Raises:
            PeftSearchError: The run's model or data cannot be loaded again.
        """
        from peftsearch.api.again import trainer_of

        return trainer_of(self.path, args, design=design, seed=seed, **kwargs)

    def train(self, output: str | os.PathLike[str], **options: Any) -> dict[str, Any]:
        """Train the pick and write a folder; see `peftsearch.train`."""
        from peftsearch.api.training import train

        return train(self.path, output=output, **options)

    def export(self, format: Format, output: str | os.PathLike[str], **options: Any) -> Path:
        """Write the pick in the format of another tool; see `peftsearch.export`."""
        from peftsearch.api.training import export

        return export(self.path, format=format, output=output, **options)

    def extend(
        self,
        *,
        trials: int | None = None,
        seeds: int | None = None,
        steps: int | None = None,
        confirm_baselines: int | None = None,
        time: str | None = None,
        workers: int | None = None,
        progress: bool = True,
    ) -> Result:
        """Let the run go on; nothing is trained twice.

        Args:
            trials: Designs to train, all in all.
            seeds: Most trainings per confirmed design, all in all.
            steps: Length of the trainings of the confirmation, which are made anew.
            confirm_baselines: Baselines to confirm, all in all.
            time: Further time, such as "30m".
            workers: Processes that train side by side.
            progress: Whether to show the progress.

        Returns:
            The result with the new verdict.
        """
        from dataclasses import replace

        from peftsearch.searcher.extend import ExtendOptions, extended
        from peftsearch.searcher.options import EngineOptions
        from peftsearch.searcher.progress import choose_reporter
        from peftsearch.searcher.run import run_study
        from peftsearch.tasks.own_metric import is_of_session

        asked = ExtendOptions(trials=trials, seeds=seeds, steps=steps, confirm_baselines=confirm_baselines, time=time)
        options = extended(self.path, asked, storage=self._storage)
        if is_of_session(options.task.metric or ""):
            workers = 1
        options = replace(options, engine=EngineOptions(workers=workers))
        run_study(options, choose_reporter(progress), resume=True, extends=True)
        return Result(self.path, storage=self._storage)

    def report(self, output: str | os.PathLike[str] | None = None) -> Path:
        """Write the HTML report, which opens in any browser without a network.

        Args:
            output: File to write; None is `report.html` in the folder.
        """
        from peftsearch.report.write_up import write_report

        return write_report(self.path, None if output is None else Path(output), self._storage)

    def plot(self) -> Figure:
        """Draw the confirmed designs: the score against the trainable parameters, with standard deviations.

        Raises:
            ReportError: matplotlib is not installed.
        """
        try:
            from matplotlib.figure import Figure
        except ImportError as error:
            raise ReportError('plot needs matplotlib: pip install "peftsearch[report]"') from error
        figure = Figure(figsize=(6.4, 4.2), dpi=120, layout="constrained")
        axes = figure.subplots()
        rows = self.comparison
        kinds = {"baseline": ("#dd8d00", "s"), "reference": ("#59636e", "D"), "found": ("#0072b2", "o")}
        for kind, (colour, mark) in kinds.items():
            own = rows[rows["kind"] == kind]
            if len(own):
                spread = own["sd"].fillna(0.0)
                axes.errorbar(
                    own["parameters"], own["mean"], spread, fmt=mark, color=colour, label=kind, capsize=3, lw=1
                )
        for _, row in rows.iterrows():
            axes.annotate(
                row["name"], (row["parameters"], row["mean"]), xytext=(5, 4), textcoords="offset points", fontsize=8
            )
        axes.set_xscale("symlog", linthresh=100)
        axes.set_xlabel("trainable parameters")
        axes.set_ylabel(f"{short_name(self.best.task.metric)}, mean ± standard deviation")
        axes.set_title(f"{self.best.task.name} at {self.best.budget.text}")
        axes.legend(frameon=False)
        return figure

    def __repr__(self) -> str:
        """The verdict and the pick in a few lines."""
        used, limit = self.best.budget.used, self.best.budget.n_params
        lines = [
            f"{self.best.task.name} at {self.best.budget.text} on {self.best.model.name}: {self.verdict.kind}",
            self.verdict.statement,
            f"pick: {self.name}, {used:,} of {limit:,} parameters; folder {self.path}",
        ]
        if self.verdict.settle:
            lines.insert(2, self.verdict.settle)
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """The verdict and the table of confirmed designs, for notebooks."""
        head, *rest = (html.escape(line) for line in repr(self).splitlines())
        table = self.comparison.to_html(index=False, float_format=lambda value: f"{value:.4f}", na_rep="")
        return f"<p><b>{head}</b><br>{'<br>'.join(rest)}</p>{table}"


def open_run(path: str | os.PathLike[str], *, storage: str = "") -> Result:
    """Open a finished run on disk.

    Args:
        path: The run's folder.
        storage: The run's Optuna storage URL; empty for SQLite in the folder.

    Raises:
        ConfigError: The folder is not that of a finished run.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise ConfigError(
            f"{folder}: is not the folder of a run; give one that `peftsearch run` made, such as runs/NAME"
        )
    return Result(folder, storage=storage)


def _line(row: StoredRow) -> dict[str, Any]:
    """One row of the comparison."""
    scores = Scores.from_dict(row.test or row.validation)
    return {
        "name": row.name,
        "kind": "reference" if row.reference else "baseline" if row.baseline else "found",
        "design": row.detail,
        "parameters": row.n_params,
        "mean": scores.mean,
        "sd": scores.std,
        "n": len(scores.values),
    }
