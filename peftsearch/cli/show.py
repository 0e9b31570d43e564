"""`peftsearch show`: draw the architecture that a run found."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from peftsearch.cli.terminal import terminal
from peftsearch.design.architecture import Architecture
from peftsearch.design.text import picture
from peftsearch.report.next_steps import next_steps
from peftsearch.samplers.stages import stage_line
from peftsearch.study.best import Best, read_best


def show(what: Path, /, *, design: str | None = None) -> int:
    """Draw the architecture that a run found, with its verdict and stages.

    Args:
        what: Folder of a run, or its best.yaml.
        design: A confirmed design other than the pick: 'trial 14', lora.
    """
    where, best = read_best(what, design)
    print_best(terminal(), best, Path(where))
    return 0


def print_best(console: Console, best: Best, path: Path, stages: bool = True) -> None:
    """Print the design and the run's verdict; for a design that the run did not pick, say so instead of the stages."""
    if best.picked is not None:
        lines = [f"{best.name} was confirmed; the run picked {best.picked}:"]
    else:
        lines = [stage_line(stage) for stage in best.stages if stages]
    architecture = Architecture.from_dict(best.architecture)
    console.print(picture(architecture, best.blocks, best.labels, best.budget.changed))
    for line in lines:
        console.print(f"  {line}", style="dim", highlight=False, markup=False, soft_wrap=True)
    console.print(best.verdict.statement, style="bold", highlight=False, markup=False, soft_wrap=True)
    if best.verdict.settle:
        console.print(best.verdict.settle, highlight=False, markup=False, soft_wrap=True)
    if best.ended_early and best.picked is None:
        console.print(best.ended_early, highlight=False, markup=False, soft_wrap=True)
    console.print(f"File: {path}", highlight=False, markup=False, soft_wrap=True)
    for number, command in enumerate(next_steps(best, str(path.parent)) if best.picked is None else ()):
        console.print(f"{'     ' if number else 'Next:'} {command}", highlight=False, markup=False, soft_wrap=True)
