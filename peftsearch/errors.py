"""Errors that users can cause, and the nearest-name hint for unknown names.

The command line prints the message of a `PeftSearchError` as one line and exits with 2; any other exception is a
defect of this project and shows its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path

_PACKAGE = Path(__file__).parent
MALFORMED = (KeyError, TypeError, AttributeError, ValueError, OverflowError)
"""Exceptions from reading a mapping whose fields may be missing, have a wrong type, or not be numbers."""


class PeftSearchError(Exception):
    """A user's fault: the message says where, what was given, what is allowed, and the next step."""


class BudgetError(PeftSearchError):
    """The budget cannot be parsed, or is too small for a design.

    Attributes:
        smallest: Smallest number of trainable parameters that fits the design; None where it does not apply.
    """

    def __init__(self, message: str, smallest: int | None = None) -> None:
        super().__init__(message)
        self.smallest = smallest


class ConfigError(PeftSearchError):
    """A YAML file or a setting is malformed or not allowed."""


class BackboneError(PeftSearchError):
    """The pretrained model cannot be found, loaded, or read as a stack of blocks."""


class MethodError(PeftSearchError):
    """A method cannot act where a design asks for it."""


class TaskError(PeftSearchError):
    """The task's data are missing or unusable."""


class StudyError(PeftSearchError):
    """The folder or the storage of a study cannot be used."""


class CheckpointError(PeftSearchError):
    """A saved or exported folder cannot be read, written, or loaded into this model."""


class ReportError(PeftSearchError):
    """A page or a picture of a study cannot be made or written."""


def one_line(text: object, limit: int = 300) -> str:
    """Shorten a text to one line of at most `limit` characters, for messages and reasons of failed trials."""
    line = " ".join(str(text).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def unknown_name(kind: str, name: object, known: Iterable[str]) -> str:
    """Say that `name` is unknown, with the nearest known name and a list of all.

    Args:
        kind: Singular noun for the named thing: "task".
        name: The unknown name.
        known: All known names.

    Returns:
        One line, without a full stop.
    """
    names = sorted(known)
    near = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"unknown {kind} {one_line(name, 80)!r}{hint} (known: {', '.join(names)})"


class AllTrialsFailed(Exception):
    """No trial has a score, or none keeps the limits; the message gives the reasons."""


class Diverged(Exception):
    """The training diverged: a loss, gradient or output is not finite; the trial fails with this reason."""


class InternalError(Exception):
    """A defect of this project ended the work; the study can be resumed once it is fixed."""


def is_defect(error: BaseException) -> bool:
    """Whether an error shows a defect of this project: one of a kind that only wrong code raises, in its own files."""
    if not isinstance(error, (AssertionError, NameError, AttributeError, TypeError)):
        return False
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    return traceback is not None and Path(traceback.tb_frame.f_code.co_filename).is_relative_to(_PACKAGE)


def internal_error(error: BaseException) -> InternalError:
    """Say that an error is a defect of this project, and where to report it."""
    return InternalError(
        f"this is a defect of peftsearch and no fault of yours: {type(error).__name__}: {one_line(error)}; please "
        "report it with the output of the same command and --debug; what was done is kept, and the same command "
        "resumes it"
    )
