"""What the commands do; imported only when one runs."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from peftsearch.catalog import shipped
from peftsearch.design.architecture import Architecture
from peftsearch.errors import MALFORMED, BudgetError, ConfigError, StudyError
from peftsearch.searcher.progress import LiveReporter, PlainReporter, Reporter

if TYPE_CHECKING:
    from peftsearch.searcher.options import RunOptions


def run(arguments: argparse.Namespace) -> int:
    """`peftsearch run`: prepare, search, conclude, print."""
    from peftsearch.errors import AllTrialsFailed
    from peftsearch.searcher.comparison import comparison_table, design_lines
    from peftsearch.searcher.options import RunOptions
    from peftsearch.searcher.run import run_study

    given = {f.name: getattr(arguments, f.name) for f in fields(RunOptions)}
    options = RunOptions(**given) if arguments.budget is not None else _stored_options(arguments)
    try:
        setup, result = run_study(options, reporter_of(arguments.json), resume=arguments.resume)
    except AllTrialsFailed as error:
        print(f"peftsearch: {error}", file=sys.stderr)
        return 1
    if arguments.json:
        print(json.dumps(result.best, ensure_ascii=False))
        return 0
    console = terminal()
    console.print(comparison_table(result.rows, result.verdict.pick.name, setup.suite.metric, console))
    for line in design_lines(result.rows):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    _print_best(console, result.best, setup.path / "best.yaml", stages=False)  # told while it ran
    return 0


def _stored_options(arguments: argparse.Namespace) -> RunOptions:
    """The options of the study that `--resume` without a budget names."""
    from peftsearch.searcher.run import read_options
    from peftsearch.study.folder import SETTINGS

    if not arguments.resume:
        raise BudgetError(
            "run needs --budget, such as --budget 0.1%; or --resume [--name NAME] for a study begun before"
        )
    runs: Path = arguments.runs
    found = sorted(runs.glob(f"*/{SETTINGS}"), key=lambda p: p.stat().st_mtime)
    if arguments.name is None and not found:
        raise StudyError(f"{runs}: there is no study to resume; start one with --budget")
    _refuse_stored(arguments)
    folder = runs / arguments.name if arguments.name is not None else found[-1].parent
    where = {
        k: getattr(arguments, k)
        for k in ("engine", "ray_address", "cpus_per_trial", "gpus_per_trial", "max_concurrent", "baselines")
    }
    return replace(read_options(folder, arguments.storage), **where)


def _refuse_stored(arguments: argparse.Namespace) -> None:
    """A resumed study keeps the options that it was begun with; others would be passed over."""
    from peftsearch.searcher.options import RunOptions
    from peftsearch.searcher.run import NOT_STORED

    own = [f for f in fields(RunOptions) if f.name not in NOT_STORED | {"budget", "name"}]
    given = next((f.name for f in own if getattr(arguments, f.name) != f.default), None)
    if given is not None:
        raise ConfigError(
            f"--{given.replace('_', '-')} with --resume and no --budget: the study keeps the options that it was begun "
            "with; leave it out, or give the whole command with --budget"
        )


def worker(arguments: argparse.Namespace) -> int:
    """`peftsearch worker`: take part in a study that another process began."""
    from peftsearch.errors import AllTrialsFailed
    from peftsearch.searcher.run import join_study

    try:
        statement = join_study(arguments.run, arguments.storage, arguments.device, PlainReporter(sys.stdout))
    except AllTrialsFailed as error:
        print(f"peftsearch: {error}", file=sys.stderr)
        return 1
    print(statement)
    return 0


def reporter_of(machine: bool) -> Reporter:
    """A live display in a terminal; plain lines elsewhere, on stderr where stdout is for a machine."""
    if machine:
        return PlainReporter(sys.stderr)
    return LiveReporter(Console()) if sys.stdout.isatty() else PlainReporter(sys.stdout)


def terminal() -> Console:
    """The terminal, or a wide page where the output goes to a file."""
    return Console() if sys.stdout.isatty() else Console(width=160)


def show(what: Path, design: str | None) -> int:
    """`peftsearch show`: the picture, the verdict and the stages of a finished run."""
    from peftsearch.study.best import read_best

    where, best = read_best(what, design)
    _print_best(terminal(), best, Path(where))
    return 0


def _print_best(console: Console, best: Mapping[str, Any], path: Path, stages: bool = True) -> None:
    """The drawing of a design, and what the run came to; of another design than the pick, that it is none."""
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


def list_catalog(arguments: argparse.Namespace) -> int:
    """`peftsearch list`."""
    if arguments.what == "methods":
        from peftsearch.methods_command import list_methods

        return list_methods(arguments)
    given = [o for o in ("model", "revision", "anatomy", "budget") if getattr(arguments, o) is not None]
    if given:
        raise ConfigError(f"--{given[0]}: is for `peftsearch list methods`; leave it out")
    tables = {
        "spaces": _spaces,
        "strategies": _strategies,
        "tasks": _tasks,
        "objectives": _objectives,
    }
    print_rows(tables[arguments.what](), arguments.json)
    return 0


def print_rows(rows: list[dict[str, Any]], as_json: bool) -> None:
    """Print a table of rows with equal keys."""
    if as_json:
        print(json.dumps(rows, ensure_ascii=False))
        return
    table = Table()
    for column in rows[0]:
        table.add_column(column, overflow="fold", no_wrap=column == "name")
    for row in rows:
        table.add_row(*(f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row.values()))
    terminal().print(table)


def _spaces() -> list[dict[str, Any]]:
    from peftsearch.design.space import load_space

    found = {name: load_space(name) for name in shipped("search_spaces")}
    return [{"name": name, "designs": s.n_designs, "what": getattr(s, "description", "")} for name, s in found.items()]


def _strategies() -> list[dict[str, Any]]:
    from peftsearch.samplers.strategy import load_strategy

    found = {name: load_strategy(name) for name in shipped("strategies")}
    return [
        {
            "name": name,
            "sampler": s.sampler,
            "pruner": s.pruner,
            "trials": s.trials,
            "steps (search, confirm x seeds)": f"{s.search.steps}, {s.confirm.steps} x {s.confirm.seeds}",
            "what": s.description,
        }
        for name, s in found.items()
    ]


def _tasks() -> list[dict[str, Any]]:
    from peftsearch.tasks import EMBEDDED

    rows = [{"name": name, "what": grammar.description} for name, grammar in EMBEDDED.items()]
    rows.append({"name": "glue/sst2, ...", "what": "any text classification or regression set of the hub"})
    rows.append({"name": "--train FILE", "what": "CSV, TSV, JSONL or Parquet of your own"})
    rows.append({"name": "--kind image --train FOLDER", "what": "images of your own, FOLDER/CLASS/*.png"})
    return rows


def _objectives() -> list[dict[str, Any]]:
    from peftsearch.study.objectives import OBJECTIVES

    return [
        {"name": o.name, "better": o.direction.removesuffix("imize") + "imum", "unit": o.unit, "what": o.description}
        for o in OBJECTIVES.values()
    ]
