"""Extend a finished study: more trials, seeds, baselines or time, or a longer confirmation; nothing is trained twice.

The schedule derives every step from the stored history, so that an extension only changes the numbers in the settings:
what they ask for and the history lacks is trained. Trainings of another length are others: a longer confirmation
trains its designs anew.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

from peftsearch.errors import ConfigError, StudyError
from peftsearch.files import from_plain
from peftsearch.options import OptionGroup, given
from peftsearch.samplers.strategy import Strategy
from peftsearch.searcher.options import EngineOptions, RunOptions, parse_time, read_options
from peftsearch.searcher.prepare import Plan

_SEARCH_SHARE = 0.5
"""Share of a further time that goes to trials of the search; the rest is for the confirmation."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExtendOptions(OptionGroup):
    """What to extend; each number is the new total."""

    trials: int | None = None
    """Designs to train, all in all, excluding baselines and confirmation."""
    seeds: int | None = None
    """Most trainings per confirmed design, all in all."""
    steps: int | None = None
    """Length of the trainings of the confirmation, which are made anew; what was found stays."""
    confirm_baselines: int | None = None
    """Baselines to confirm, all in all."""
    time: str | None = None
    """Further time for the run, such as 30m or 2h; alone it brings more trials."""


def extended(folder: Path, asked: ExtendOptions, *, storage: str = "") -> RunOptions:
    """The options of a study with larger numbers.

    Args:
        folder: The study's folder.
        asked: What to extend.
        storage: The study's storage URL; empty for SQLite in the folder.

    Raises:
        ConfigError: Nothing is asked for, or a number is not larger than that of the study.
        StudyError: The folder holds no study.
    """
    from peftsearch.study.record import read_record

    options = read_options(folder, storage)
    strategy, steps, confirm_steps = _stored(folder)
    confirm = strategy.confirm
    has: dict[str, tuple[Any, Any]] = {
        "--trials": (asked.trials, strategy.trials),
        "--seeds": (asked.seeds, confirm.seeds),
        "--steps": (asked.steps, confirm_steps or steps),
        "--confirm-baselines": (asked.confirm_baselines, confirm.baselines),
    }
    if asked.time is None and all(new is None for new, _ in has.values()):
        raise ConfigError("extend needs what to extend: --trials, --seeds, --steps, --confirm-baselines or --time")
    for flag, (new, old) in has.items():
        if new is not None and new <= old:
            raise ConfigError(f"{folder}: {flag} {new}: the study has {old} already; give a larger number")
    own: dict[str, Any] = given(asked, "trials", "seeds", "confirm_baselines")
    if asked.steps is not None:
        own["confirm_steps"] = asked.steps
    if asked.time is not None:
        record = read_record(folder, storage)
        seconds = parse_time(asked.time)
        # The study keeps its length, which `--time` would otherwise set.
        own |= {"time": f"{record.busy_s + seconds:.0f}s", "steps": None, "epochs": None}
        if all(new is None for new, _ in has.values()):
            taken = [t.facts.wall_s for t in record.scored if t.facts.wall_s]
            more = round(_SEARCH_SHARE * seconds / mean(taken)) if taken else 1
            own["trials"] = strategy.trials + max(1, more)
    search = replace(options.search, **own)
    return replace(options, search=search)


def with_engine(options: RunOptions, engine: EngineOptions, device: str | None) -> RunOptions:
    """The options with another place to train."""
    machine = options.machine if device is None else replace(options.machine, device=device)
    return replace(options, engine=engine, machine=machine)


def known_plan(options: RunOptions) -> Plan:
    """The breadth and length that a study on disk has.

    Raises:
        StudyError: There is no study.
    """
    assert options.study.name is not None, "the options of a study on disk name it"
    strategy, steps, _ = _stored(options.study.runs / options.study.name)
    return Plan(strategy=strategy, steps=steps)


def _stored(folder: Path) -> tuple[Strategy, int, int | None]:
    """Strategy, length of a training, and that of the confirmation if it is another."""
    from peftsearch.study.folder import SETTINGS, read_settings  # imports Optuna, which is slow

    stored = read_settings(folder)
    strategy = from_plain(Strategy, stored.strategy, str(folder / SETTINGS), StudyError)
    return strategy, stored.steps, stored.confirm_steps
