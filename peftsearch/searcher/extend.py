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

from peftsearch.errors import ConfigError
from peftsearch.options import OptionGroup, given
from peftsearch.searcher.options import RunOptions, parse_time, read_options
from peftsearch.searcher.prepare import stored_plan
from peftsearch.study.best import BEST

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
    plan = stored_plan(folder)
    assert plan is not None, "a study whose options are stored has its settings"
    strategy, confirm = plan.strategy, plan.strategy.confirm
    has: dict[str, tuple[Any, Any]] = {
        "--trials": (asked.trials, strategy.trials),
        "--seeds": (asked.seeds, confirm.seeds),
        "--steps": (asked.steps, options.search.confirm_steps or plan.steps),
        "--confirm-baselines": (asked.confirm_baselines, confirm.baselines),
    }
    if asked.time is None and all(new is None for new, _ in has.values()):
        raise ConfigError("extend needs what to extend: --trials, --seeds, --steps, --confirm-baselines or --time")
    is_finished = (folder / BEST).is_file()
    for flag, (new, old) in has.items():
        if new is not None and (new < old or (new == old and is_finished)):  # an interrupted extension may go on
            raise ConfigError(f"{folder}: {flag} {new}: the study has {old} already; give a larger number")
    own: dict[str, Any] = given(asked, "trials", "seeds", "confirm_baselines") | {"untimed": asked.time is None}
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
    if own.get("trials") and strategy.patience is not None:
        own["patience"] = own["trials"]  # the trials before would end the search at once
    search = replace(options.search, **own)
    return replace(options, search=search)
