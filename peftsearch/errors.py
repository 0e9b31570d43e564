"""Errors that users can cause, and the nearest-name hint for unknown names.

The command line prints the message of a `PeftSearchError` as one line and exits with 2. An error that `is_defect` shows
to be ours ends the work with an `InternalError`, in one line too, and exit code 1; any other shows its traceback.
"""

from __future__ import annotations

import difflib
import re
import sysconfig
from collections.abc import Iterable
from pathlib import Path
from traceback import walk_tb

_PACKAGE = Path(__file__).parent
_STANDARD_LIBRARY = Path(sysconfig.get_path("stdlib"))
MALFORMED = (KeyError, TypeError, AttributeError, ValueError, OverflowError)
"""Exceptions from reading a mapping whose fields may be missing, have a wrong type, or not be numbers."""


_SECRETS = (
    (re.compile(r"(?i)(\w*(?:password|passwd|pwd|token|secret|api_?key)=)(?:'[^']*'|\"[^\"]*\"|[^&\s'\"]+)"), r"\1***"),
    (re.compile(r"(:/+)[^\s'\"]*@"), r"\1***@"),
    (re.compile(r"(?<![\w/])[\w.+-]+:[^\s'\"/]*@(?=[\w.\[])"), r"***@"),
    (re.compile(r"(?<![\w:/.-])(\w+//)[^\s'\"/:]+:[^\s'\"/]+"), r"\1***"),
)
"""What may be a password in a text, and what stands for it."""


def hide_secrets(text: str) -> str:
    """A text without what may be passwords: before an @ of a URL, well-formed or not, or behind `password=`."""
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    return text


class PeftSearchError(Exception):
    """A user's fault: the message says where, what was given, what is allowed, and the next step."""

    def __str__(self) -> str:
        """The message, without passwords."""
        return hide_secrets(super().__str__())


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
    """Whether an error shows a defect of this project: one of a kind that only wrong code raises, by its own files.

    Torch and the standard library raise it in the name of their caller (a misspelt attribute of a module), so their
    frames do not count; those of other libraries and of a model's own code do.
    """
    if not isinstance(error, (AssertionError, NameError, AttributeError, TypeError)):
        return False
    files = [Path(frame.f_code.co_filename) for frame, _ in walk_tb(error.__traceback__)]
    callers = [file for file in files if not _is_raised_for_the_caller(file)]
    return bool(callers) and callers[-1].is_relative_to(_PACKAGE)


def _is_raised_for_the_caller(file: Path) -> bool:
    """Whether a file is of torch, of the standard library, or generated."""
    if "site-packages" in file.parts:
        return file.parts[file.parts.index("site-packages") + 1] == "torch"
    return file.name.startswith("<") or file.is_relative_to(_STANDARD_LIBRARY)


def internal_error(error: BaseException, *, resumes: bool = False) -> InternalError:
    """Say that an error is a defect of this project, and where to report it.

    Args:
        error: The error.
        resumes: Whether the same command goes on where it ended.
    """
    advice = "; what was done is kept, and the same command resumes it" if resumes else ""
    return InternalError(
        f"this is a defect of peftsearch and no fault of yours: {type(error).__name__}: {one_line(error)}; please "
        f"open an issue in its repository with the output of the same command and --debug{advice}"
    )
