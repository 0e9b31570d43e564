"""Every fault that a user can cause, and the nearest-name hint that goes with an unknown name.

The command line prints the message of a `PeftSearchError` as one line and exits with 2; anything else that
escapes is a defect of this project and shows its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path

_PACKAGE = Path(__file__).parent
MALFORMED = (KeyError, TypeError, AttributeError, ValueError, OverflowError)
"""What reading a mapping of unknown form raises where a field is missing, of another type, or no number."""


class PeftSearchError(Exception):
    """A user's fault: the message says where, what was given, what is allowed, and the next step."""


class BudgetError(PeftSearchError):
    """The budget cannot be read, or a design cannot fit into it.

    Attributes:
        smallest: The smallest number of trainable parameters that can hold the design; None where it does not apply.
    """

    def __init__(self, message: str, smallest: int | None = None) -> None:
        super().__init__(message)
        self.smallest = smallest


class ConfigError(PeftSearchError):
    """A YAML file or a setting is not of the form that is needed."""


class BackboneError(PeftSearchError):
    """The pretrained model cannot be found, loaded, or read as a stack of blocks."""


class MethodError(PeftSearchError):
    """A method cannot act where a design asks for it."""


class TaskError(PeftSearchError):
    """The data of the task are missing or cannot be used."""


class StudyError(PeftSearchError):
    """The folder or the storage of a study cannot be used."""


class CheckpointError(PeftSearchError):
    """A saved or exported folder cannot be read, written, or put into this model."""


class ReportError(PeftSearchError):
    """A page or a picture of a study cannot be made or written."""


def one_line(text: object, limit: int = 300) -> str:
    """Squeeze a text into one line of at most `limit` characters, as messages and trial reasons need it."""
    line = " ".join(str(text).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def unknown_name(kind: str, name: object, known: Iterable[str]) -> str:
    """Say that `name` is unknown, with the nearest known name and all that there are.

    Args:
        kind: What is named, singular: "task".
        name: What was given.
        known: The names that exist.

    Returns:
        One line, without a full stop at its end.
    """
    names = sorted(known)
    near = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"unknown {kind} {one_line(name, 80)!r}{hint} (known: {', '.join(names)})"


class AllTrialsFailed(Exception):
    """Not one trial has a score, or none keeps the limits; the message gives the reasons."""


class Diverged(Exception):
    """The loss is no longer a number; the trial is recorded as failed with this reason."""


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
