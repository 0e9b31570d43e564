"""Entry point of the command line: the table of commands, and the handling of their errors.

A command is imported only when it runs: `peftsearch --help` imports neither torch nor transformers nor Optuna.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Sequence
from typing import TextIO

from cyclopts import App, CycloptsError, Parameter

from peftsearch import __version__
from peftsearch.cli.config import with_config
from peftsearch.errors import (
    AllTrialsFailed,
    InternalError,
    PeftSearchError,
    hide_secrets,
    internal_error,
    is_defect,
)

COMMANDS = {
    "run": ("run:run", "Search, confirm, and write runs/NAME/best.yaml."),
    "extend": ("extend:extend", "Let a run go on: more trials, seeds, baselines, steps or time."),
    "train": ("train:train", "Train the result of a run in full."),
    "evaluate": ("evaluate:evaluate", "Score a trained model."),
    "predict": ("predict:predict", "Predict a label or a text for every row."),
    "show": ("show:show", "Draw the architecture that a run found."),
    "runs": ("runs:runs", "List the runs of a folder."),
    "compare": ("compare:compare", "Compare the picks of finished runs."),
    "report": ("report:report", "Write a run's report.html."),
    "pareto": ("pareto:pareto", "Show the front of score and cost."),
    "export": ("export:export", "Export a found architecture to other tools."),
    "estimate": ("estimate:estimate", "Estimate the memory of a training step from a config."),
    "subspace": ("subspace:subspace", "Learn a subspace of prompts from many tasks, for the method ipt."),
    "advise": ("advise:advise", "Suggest methods to start with, by the number of examples."),
    "list": ("list:list_catalog", "List spaces, strategies, methods, tasks or objectives."),
    "worker": ("worker:worker", "Join a run that another process started."),
}
"""Module and function of each command within this room, and its line in the help."""


def app() -> App:
    """Make the cyclopts app of all commands."""
    top = App(
        name="peftsearch",
        help="Find the best mix of fine-tuning methods for a model, a task and a budget of parameters.",
        help_epilogue="Any command takes --config FILE (YAML, or a run's settings.yaml), and --debug, which shows the "
        "traceback of an error.",
        version=__version__,
        default_parameter=Parameter(negative=(), allow_repeating=True),
        suppress_keyboard_interrupt=False,
    )
    for name, (place, line) in COMMANDS.items():
        top.command(f"peftsearch.cli.{place}", name=name, help=line, sort_key=list(COMMANDS).index(name))
    top.register_install_completion_command(help="Install completion for the shell that runs this.")
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: Arguments without the program's name; None for those of the process.

    Returns:
        0 on success, 1 if every trial failed or for a defect of peftsearch, 2 for an error of the user, 3 for `run
        --exit-code` without a signal, 130 if interrupted.
    """
    sys.stdout, sys.stderr = sys.stdout or _nowhere(), sys.stderr or _nowhere()  # None where they are closed (>&-)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # signs that the stream cannot take must not end a run
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    try:
        words = [word for word in words if word != "--debug"]
        status = app()(
            with_config(words),
            exit_on_error=False,
            print_error=False,
            result_action="return_value",
        )
        sys.stdout.flush()  # a full disk is told here and not when the process ends
        return status if isinstance(status, int) else 0
    except CycloptsError as error:
        command = " ".join(["peftsearch", *(error.command_chain or ())])
        print(f"{command}: {_one_line(error)} (see {command} --help)", file=sys.stderr)
        return 2
    except (PeftSearchError, AllTrialsFailed) as error:
        if debug:
            raise
        print(f"peftsearch: {_one_line(error)}", file=sys.stderr)
        return 1 if isinstance(error, AllTrialsFailed) else 2
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC and error.filename is None and not debug:
            sys.stdout = _nowhere()  # what is left is lost with the rest
            print(f"peftsearch: the output cannot be written: {error.strerror}", file=sys.stderr)
            return 1
        if debug or not (isinstance(error, InternalError) or is_defect(error)):
            raise
        told = error if isinstance(error, InternalError) else internal_error(error)
        print(f"peftsearch: {_one_line(told)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("peftsearch: interrupted; rerun the same command to continue", file=sys.stderr)
        return 130


def _nowhere() -> TextIO:
    return open(os.devnull, "w", encoding="utf-8")  # until the process ends


def _one_line(error: Exception) -> str:
    return hide_secrets(" ".join(str(error).split()))
