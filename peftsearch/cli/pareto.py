"""`peftsearch pareto`: the front of runs that exist, or of a sweep over budgets."""

from __future__ import annotations

import argparse
import json
import math
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from itertools import takewhile
from pathlib import Path
from typing import Any

from peftsearch.cli.terminal import reporter_of, terminal
from peftsearch.errors import ConfigError, ReportError, StudyError, one_line
from peftsearch.report.pareto.arithmetic import require_moocore
from peftsearch.report.pareto.axis import Axis, axis_of
from peftsearch.report.pareto.front import Front, analyse
from peftsearch.report.pareto.page import front_page
from peftsearch.report.pareto.png import front_png
from peftsearch.report.pareto.points import read_points
from peftsearch.report.pareto.text import conclusions, front_csv, front_json, front_table
from peftsearch.study.folder import SETTINGS
from peftsearch.study.storage import storage_faults

CSV = "pareto.csv"


def pareto(arguments: argparse.Namespace) -> int:
    """Run the command: sweep where budgets are given, then analyse, write and print."""
    require_moocore()
    axis = axis_of(arguments.x)
    reference = _reference(arguments.reference, axis)
    if bool(arguments.what) == bool(arguments.budgets):
        raise ConfigError(
            "pareto needs either folders of runs (one of several objectives, or several of different budgets) or "
            "--budgets, such as --budgets 0.05%,0.1%,0.5%"
        )
    if arguments.out is not None:
        _require_folder(arguments.out)
    if arguments.budgets:
        from peftsearch.errors import AllTrialsFailed

        try:
            paths, out = _sweep(arguments)
        except AllTrialsFailed as error:
            print(f"peftsearch: {error}", file=sys.stderr)
            return 1
    else:
        _refuse_search_options(arguments)
        paths = [path for path in arguments.what if not _is_front(path)] or arguments.what
        out = arguments.out or _beside(paths)
        _require_folder(out)
    front = analyse([read_points(path, arguments.storage) for path in paths], arguments.x, reference)
    written, left_out = _write(front, out, command_of(arguments))
    if arguments.json:
        print(json.dumps(front_json(front) | {"files": [str(path) for path in written]}, ensure_ascii=False))
        for note in left_out:
            print(f"Note: {note}", file=sys.stderr)
        return 0
    console = terminal()
    console.print(front_table(front))
    for line in [*conclusions(front), *(f"Note: {n}" for n in left_out), f"Files: {', '.join(map(str, written))}"]:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    return 0


def _sweep(arguments: argparse.Namespace) -> tuple[list[Path], Path]:
    from peftsearch.searcher.options import RunOptions
    from peftsearch.searcher.sweep import plan_sweep, run_sweep, split_budgets

    budgets = split_budgets(arguments.budgets)
    given = {f.name: getattr(arguments, f.name) for f in fields(RunOptions) if f.name != "budget"}
    plan = plan_sweep(RunOptions(budget="", **given), budgets)
    out = arguments.out or plan.out
    _require_folder(out)
    return run_sweep(plan, lambda: reporter_of(arguments.json)), out


def command_of(arguments: argparse.Namespace) -> str:
    """The command as one would type it; a storage, which may hold a password, stays out."""
    words = ["peftsearch", "pareto", *map(str, arguments.what)]
    for name, value in {"budgets": arguments.budgets, "x": arguments.x, "reference": arguments.reference}.items():
        if value is not None and (name, value) != ("x", "params"):
            words += [f"--{name}", value]
    for name, value in _given(arguments).items():
        words += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
    return shlex.join(words)


def _given(arguments: argparse.Namespace) -> dict[str, Any]:
    """The options of a search that differ from their defaults."""
    from peftsearch.searcher.options import RunOptions

    kept = [f for f in fields(RunOptions) if f.name not in {"budget", "storage"}]
    return {f.name: getattr(arguments, f.name) for f in kept if getattr(arguments, f.name) != f.default}


def _refuse_search_options(arguments: argparse.Namespace) -> None:
    for name in _given(arguments):
        if name != "runs":
            raise ConfigError(
                f"--{name.replace('_', '-')} belongs to a sweep (--budgets); with folders of runs there are --x, "
                "--reference, --out, --storage and --json"
            )


def _is_front(path: Path) -> bool:
    """Whether a folder is that of a front, which `runs/NAME-*` names beside the runs."""
    return (path / CSV).is_file() and not (path / SETTINGS).exists()


def _beside(paths: Sequence[Path]) -> Path:
    """Where the front of runs goes: into the one run, or beside the first, named by what their names share."""
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
    """Write the files; returns them, and what was left out and why."""
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
            part = out / f".{name}.part"
            part.write_bytes(content)
            part.replace(out / name)
            written.append(out / name)
    return written, left_out
