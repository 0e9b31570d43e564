"""`peftsearch show`: draw what a run found."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from peftsearch.cli.terminal import terminal
from peftsearch.design.architecture import Architecture
from peftsearch.errors import MALFORMED, ConfigError


def show(what: Path, /, *, design: str | None = None) -> int:
    """Draw the architecture that a run found, with its verdict and stages.

    Args:
        what: Folder of a run, or its best.yaml.
        design: A confirmed design other than the pick: 'trial 14', lora.
    """
    from peftsearch.study.best import read_best

    where, best = read_best(what, design)
    print_best(terminal(), best, Path(where))
    return 0


def print_best(console: Console, best: Mapping[str, Any], path: Path, stages: bool = True) -> None:
    """Print the design and the run's verdict; of a design that the run did not pick, say so instead of the stages."""
    from peftsearch.design.text import picture
    from peftsearch.samplers.stages import stage_line

    try:
        architecture = Architecture.from_dict(best["architecture"])
        blocks = [(stack, i) for stack, n in best["model"]["stacks"].items() for i in range(n)]
        labels = {
            (entry["stack"], entry["block"], method): str(facts.get("label", facts["size"]))
            for entry in best["architecture"]["blocks"]
            for method, facts in entry["methods"].items()
        }
        if "picked" in best:
            lines = [f"{best['name']} was confirmed; the run picked {best['picked']}:"]
        else:
            lines = [stage_line(stage) for stage in best["stages"] if stages]
        statement, settle = str(best["verdict"]["statement"]), str(best["verdict"]["settle"])
        drawn = picture(architecture, blocks, labels, best["budget"].get("changed"))
    except MALFORMED as error:
        raise ConfigError(f"{path}: is damaged: {type(error).__name__} {error}") from error
    console.print(drawn)
    for line in lines:
        console.print(f"  {line}", style="dim", highlight=False, markup=False, soft_wrap=True)
    console.print(statement, style="bold", highlight=False, markup=False, soft_wrap=True)
    if settle:
        console.print(settle, highlight=False, markup=False, soft_wrap=True)
    console.print(f"File: {path}", highlight=False, markup=False, soft_wrap=True)
