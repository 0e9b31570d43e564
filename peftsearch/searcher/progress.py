"""Progress of a running search: a live display in a terminal, plain lines elsewhere."""

from __future__ import annotations

import io
import sys
import time
from dataclasses import dataclass
from typing import Literal, Protocol, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.text import Text

from peftsearch.study.trials import Phase
from peftsearch.units import format_seconds, plural

Ending = Literal["complete", "reused", "pruned", "failed", "lost", "does not fit"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialLine:
    """One trial, as the display shows it."""

    phase: Phase
    name: str
    """Name of the trial: `lora`, `trial 12`."""
    stage: str = ""
    """Stage of the search; empty without stages."""
    state: Ending = "complete"
    score: float | None = None
    """Validation score."""
    loss: float | None = None
    """Mean validation loss."""
    value: float | None = None
    """What ranks the trial, the higher the better."""
    n_params: int | None = None
    detail: str = ""
    """The design, or the reason why the trial failed."""


class Reporter(Protocol):
    """Receiver of all events of a search."""

    def note(self, text: str) -> None:
        """Show a line that stays."""

    def start(self, n_steps: int, step_s: float) -> None:
        """Start the work of `n_steps` optimizer steps, at an expected `step_s` seconds per step."""

    def phase(self, name: str, n_trials: int) -> None:
        """Start a phase."""

    def trial(self, line: TrialLine, n_steps: int) -> None:
        """Show a finished trial, which completes `n_steps` of the work."""

    def close(self) -> None:
        """End the work."""


class PlainReporter:
    """Print one line per event, for logs and pipes.

    Args:
        stream: Stream to print to.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._clock = _Clock()
        self._best = _Best()

    def note(self, text: str) -> None:
        """Print the text."""
        print(text, file=self._stream, flush=True)

    def start(self, n_steps: int, step_s: float) -> None:
        """Start the clock."""
        self._clock.start(n_steps, step_s)

    def phase(self, name: str, n_trials: int) -> None:
        """Print the phase."""
        self._best.phase = name
        self.note(f"-- {name}: {plural(n_trials, 'trial')}")

    def trial(self, line: TrialLine, n_steps: int) -> None:
        """Print the trial with the time left."""
        self._clock.advance(n_steps)
        self._best.see(line)
        left = f"; {format_seconds(self._clock.left_s)} left" if self._clock.is_started else ""
        self.note(f"   {format_line(line)}  [{self._best.text}{left}]")

    def close(self) -> None:
        """Do nothing: there is nothing to close."""


class LiveReporter:
    """Show a live display of progress, stage, best score and time left; notes and finished phases stay above it.

    Args:
        console: Console of a terminal.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._clock = _Clock()
        self._best = _Best()
        self._last = Text("")
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(bar_width=30), MofNCompleteColumn(), console=console
        )
        self._task = self._progress.add_task("starting", total=None)
        self._live: Live | None = None

    def note(self, text: str) -> None:
        """Print the text above the display."""
        self._console.print(text, highlight=False, markup=False)

    def start(self, n_steps: int, step_s: float) -> None:
        """Show the display."""
        self._clock.start(n_steps, step_s)
        self._live = Live(get_renderable=self._draw, console=self._console, refresh_per_second=4, transient=True)
        self._live.start()

    def phase(self, name: str, n_trials: int) -> None:
        """Start a new bar."""
        if self._best.name:
            self.note(f"{self._best.phase} done: {self._best.text}")
        self._best.phase = name
        self._progress.reset(self._task, total=n_trials, description=name)

    def trial(self, line: TrialLine, n_steps: int) -> None:
        """Advance the bar."""
        self._clock.advance(n_steps)
        self._best.see(line)
        stage = f" · {line.stage}" if line.stage else ""
        done = 0 if line.state == "lost" else 1
        self._progress.update(self._task, advance=done, description=f"{line.phase}{stage}")
        self._last = Text(format_line(line), overflow="ellipsis", no_wrap=True)
        if line.state in {"failed", "lost"}:
            self.note(f"{line.name} {line.state}: {line.detail}")

    def close(self) -> None:
        """Remove the display."""
        if self._live is not None:
            self._live.stop()

    def _draw(self) -> Group:
        left = Text(f"so far: {self._best.text}   time left: {format_seconds(self._clock.left_s)}", style="bold")
        return Group(self._progress, left, self._last)


def choose_reporter(shown: bool = True, *, machine: bool = False) -> Reporter:
    """A live display in a terminal, plain lines elsewhere.

    Args:
        shown: Whether to show anything.
        machine: Whether stdout is for a machine, so that the lines go to stderr.
    """
    if not shown:
        return PlainReporter(io.StringIO())
    if machine:
        return PlainReporter(sys.stderr)
    return LiveReporter(Console()) if sys.stdout.isatty() else PlainReporter(sys.stdout)


class _Best:
    """The best score of a phase."""

    def __init__(self) -> None:
        self.name = ""
        self._phase = ""
        self._value: float | None = None
        self._shown = ""

    @property
    def phase(self) -> str:
        return self._phase

    @phase.setter
    def phase(self, name: str) -> None:
        if name != self._phase and {name, self._phase} & {"promote", "repeat", "rates", "confirm"}:
            self.name, self._value = "", None  # the length differs, so values are not comparable
        self._phase = name

    def see(self, line: TrialLine) -> None:
        value = line.score if line.value is None else line.value
        # References are outside the budget.
        if value is None or line.phase == Phase.REFERENCES:
            return
        if self._value is None or value > self._value:
            self.name, self._value, self._shown = line.name, value, format_scores(line)

    @property
    def text(self) -> str:
        return "none yet" if self._value is None else f"best {self.name} {self._shown}"


class _Clock:
    """Estimate of the time left, from the work done and the time it took."""

    def __init__(self) -> None:
        self._n_steps = 0
        self._done = 0
        self._expected_step_s = 0.0
        self._started = time.monotonic()

    def start(self, n_steps: int, step_s: float) -> None:
        self._n_steps, self._expected_step_s = n_steps, step_s
        self._started = time.monotonic()

    def advance(self, n_steps: int) -> None:
        self._done += n_steps

    @property
    def is_started(self) -> bool:
        return self._n_steps > 0

    @property
    def left_s(self) -> float:
        measured = (time.monotonic() - self._started) / self._done if self._done else self._expected_step_s
        return max(0, self._n_steps - self._done) * measured


def format_line(line: TrialLine) -> str:
    """Format a finished trial in one line."""
    n_params = "" if line.n_params is None else f"{line.n_params:,}"
    state = "" if line.state == "complete" else f" ({line.state})"
    return f"{line.name:<12} {format_scores(line):>17} {n_params:>9}{state} {line.detail}".rstrip()


def format_scores(line: TrialLine) -> str:
    """Score and loss of a trial: `0.9120, loss 0.31`; empty without any."""
    parts = [] if line.score is None else [f"{line.score:.4f}"]
    return ", ".join(parts if line.loss is None else [*parts, f"loss {line.loss:.3f}"])
