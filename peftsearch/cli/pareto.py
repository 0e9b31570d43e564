"""`peftsearch pareto`: show the front of existing runs, or of a sweep over budgets."""

from __future__ import annotations

import json as json_text
import math
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console

from peftsearch.cli.terminal import terminal
from peftsearch.errors import ConfigError, ReportError, StudyError, one_line
from peftsearch.files import replacing
from peftsearch.options import HYPHEN, OptionGroup, changed_options, command_words, group
from peftsearch.report.pareto.arithmetic import require_moocore
from peftsearch.report.pareto.axis import Axis, axis_of
from peftsearch.report.pareto.front import Front, analyse
from peftsearch.report.pareto.page import front_page
from peftsearch.report.pareto.png import front_png
from peftsearch.report.pareto.points import read_points
from peftsearch.report.pareto.text import conclusions, front_csv, front_json, front_table
from peftsearch.searcher.options import SweepOptions, read_choices, split_budgets
from peftsearch.searcher.progress import choose_reporter
from peftsearch.study.settings import SETTINGS
from peftsearch.study.storage import storage_faults

CSV = "pareto.csv"


@dataclass(frozen=True, kw_only=True, slots=True)
class FrontOptions(OptionGroup):
    """Which front to show, and where to write it."""

    budgets: Annotated[str | None, HYPHEN] = None
    """Search at each of these budgets: 0.02%,0.1%,1%."""
    x: str = "params"
    """Cost on the horizontal axis: params, latency, memory, ... (`list objectives`)."""
    reference: Annotated[str | None, HYPHEN] = None
    """Reference point of the hypervolume: SCORE,COST."""
    out: Path | None = None
    """Folder of the results (default: next to the runs)."""


def pareto(
    runs_to_compare: Annotated[tuple[Path, ...], Parameter(name="RUN")] = (),
    /,
    *,
    front: Annotated[FrontOptions | None, group("Front")] = None,
    options: Annotated[SweepOptions | None, Parameter(name="*")] = None,
    json: bool = False,
) -> int:
    """Show the front of score and cost of existing runs, or of a sweep over budgets.

    Args:
        runs_to_compare: Folders of runs: several with different budgets, or one.
        front: Which front to show, and where to write it.
        options: The options of each study of a sweep.
        json: Print the result as JSON; progress goes to stderr.
    """
    front, options, folders = front or FrontOptions(), options or SweepOptions(), list(runs_to_compare)
    require_moocore()
    axis = axis_of(front.x)
    reference = _reference(front.reference, axis)
    if bool(folders) == bool(front.budgets):
        raise ConfigError(
            "pareto needs either folders of runs (one, or several with different budgets) or --budgets, such as "
            "--budgets 0.05%,0.1%,0.5%"
        )
    if front.out is not None:
        _require_folder(front.out)
    if front.budgets:
        paths, out = _sweep(front.budgets, front.out, options, json)
    else:
        _refuse_search_options(options)
        paths = [path for path in folders if not _is_front(path)] or folders
        out = front.out or _beside(paths)
        _require_folder(out)
    found = analyse([read_points(path, options.study.storage) for path in paths], front.x, reference)
    written, left_out = _write(found, out, command_of(folders, front, options))
    if json:
        print(json_text.dumps(front_json(found) | {"files": [str(path) for path in written]}, ensure_ascii=False))
        for note in left_out:
            print(f"Note: {note}", file=sys.stderr)
        return 0
    _print(terminal(), found, [*(f"Note: {n}" for n in left_out), f"Files: {', '.join(map(str, written))}"])
    return 0


def print_front(console: Console, path: Path, storage: str) -> None:
    """Print the front of a run with several objectives, or how to get it where moocore is not installed.

    Args:
        console: The terminal.
        path: Folder of the run.
        storage: Storage URL of the study; empty for SQLite in the folder.
    """
    try:
        require_moocore()
        found = analyse([read_points(path, storage)])
    except ReportError as error:
        console.print(f"The front is not shown: {error}", highlight=False, markup=False, soft_wrap=True)
        return
    _print(console, found, [])


def _print(console: Console, front: Front, more: list[str]) -> None:
    console.print(front_table(front))
    for line in [*conclusions(front), *more]:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _sweep(budgets: str, out: Path | None, options: SweepOptions, json: bool) -> tuple[list[Path], Path]:
    shares = split_budgets(budgets)
    read_choices(options.at("100%"))  # before the import of torch
    from peftsearch.searcher.sweep import plan_sweep, run_sweep

    plan = plan_sweep(options, shares)
    out = out or plan.out
    _require_folder(out)
    return run_sweep(plan, lambda: choose_reporter(machine=json)), out


def command_of(folders: Sequence[Path], front: FrontOptions, options: SweepOptions) -> str:
    """The command as the user would type it, without a storage URL, which may contain a password."""
    words = ["peftsearch", "pareto", *map(str, folders), *command_words(front, but={"--out"})]
    return shlex.join([*words, *command_words(options, but={"--storage"})])


def _refuse_search_options(options: SweepOptions) -> None:
    for flag in changed_options(options, but={"--runs", "--storage"}):
        raise ConfigError(
            f"{flag} belongs to a sweep (--budgets); with folders of runs, only --x, --reference, --out, --storage "
            "and --json apply"
        )


def _is_front(path: Path) -> bool:
    """Whether a folder holds a front, which a pattern such as `runs/NAME-*` matches in addition to the runs."""
    return (path / CSV).is_file() and not (path / SETTINGS).exists()


def _beside(paths: Sequence[Path]) -> Path:
    """Default folder of a front: the run itself, or next to several runs, named by their common prefix."""
    if len(paths) == 1:
        return paths[0]
    letters = takewhile(lambda same: len(set(same)) == 1, zip(*(path.name for path in paths), strict=False))
    shared = "".join(same[0] for same in letters).rstrip("-_. 0")
    return paths[0].parent / f"{shared}-pareto" if shared else paths[0].parent / "pareto"


def _require_folder(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise StudyError(f"{out}: is not a folder; give another --out or --name")


def _reference(text: str | None, axis: Axis) -> tuple[float, float] | None:
    if text is None:
        return None
    try:
        score, cost = (float(part.replace("_", "")) for part in text.split(","))
    except ValueError:
        score = cost = math.nan
    if not (math.isfinite(score) and math.isfinite(cost)) or (axis.log and cost <= 0):
        raise ConfigError(
            f"--reference {one_line(text, 60)!r}: write a score and a cost in the unit of {axis.measure}"
            f"{', above zero' if axis.log else ''}, such as 0.5,{1000000 if axis.measure == 'params' else 1}"
        )
    return score, cost


def _write(front: Front, out: Path, command: str) -> tuple[list[Path], list[str]]:
    """Write the files; returns their paths, and notes on the files left out."""
    makers: dict[str, Callable[[], bytes]] = {
        CSV: lambda: front_csv(front).encode(),
        "pareto.png": lambda: front_png(front),
        "pareto.html": lambda: front_page(front, command).encode(),
    }
    written, left_out = [], []
    with storage_faults(out):
        out.mkdir(parents=True, exist_ok=True)
        for name, make in makers.items():
            try:
                content = make()
            except ReportError as error:
                left_out.append(f"{name} is left out: {error}")
                continue
            with replacing(out / name) as part:
                part.write_bytes(content)
            written.append(out / name)
    return written, left_out
