"""Everything needed to reproduce a study: its command, seed, versions and hardware."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from peftsearch.errors import ConfigError
from peftsearch.files import from_plain
from peftsearch.options import command_words
from peftsearch.report.page import Cell, Item, Section, Table, Text
from peftsearch.searcher.options import RunOptions, StudyOptions
from peftsearch.study.record import Record


def command(record: Record) -> str | None:
    """The command line that starts or resumes the study; None if the settings do not hold its options.

    A password in a storage URL is not stored and appears as stars.
    """
    if not record.settings.options:
        return None
    try:
        options = from_plain(RunOptions, record.settings.options, "options")
    except ConfigError:
        return None
    parent, settings = record.path.parent, record.settings
    study = StudyOptions(name=record.path.name, runs=parent, storage="" if settings.in_folder else settings.storage)
    references = ",".join(record.references) or None
    return shlex.join(["peftsearch", "run", *command_words(replace(options, study=study, baselines=references))])


def provenance(record: Record) -> Section:
    """Section with command, seed, data, versions and hardware."""
    settings, best = record.settings, record.best
    line = command(record)
    items: list[Item] = []
    if line is None:
        items.append(Text(text="The options of this run are not stored; its settings are below.", kind="note"))
    else:
        items += [Text(text="Rerun this command to resume the study, or to reproduce it in another folder."),
                  Text(text=line, kind="code")]  # fmt: skip
    rows: list[list[Cell]] = [
        ["model", _joined(settings.model, settings.revision)],
        ["task", _joined(settings.task, settings.task_source)],
        ["fingerprint of the data", settings.task_fingerprint],
        ["notes on the data", "; ".join(best.task.notes) if best else ""],
        ["metric", record.metric],
        ["budget", _joined(settings.budget, f"{settings.budget_params:,} trainable parameters")],
        ["search space", settings.space],
        ["strategy", _joined(settings.strategy.get("name"), settings.strategy.get("description"))],
        ["training", _pairs(settings.training)],
        ["seed", str(settings.seed)],
        ["hardware", (best and best.hardware) or "recorded when the run is finished"],
        ["versions", (best and _pairs(best.versions)) or "recorded when the run is finished"],
        ["finished", (best and best.made) or "no"],
        ["study", str(record.path)],
    ]  # fmt: skip
    items.append(Table(columns=["what", "value"], rows=[row for row in rows if row[1]]))
    return Section(title="How it was made", items=items)


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _joined(first: Any, more: Any) -> str:
    return f"{first} ({more})" if more else _text(first)


def _pairs(data: Any) -> str:
    return ", ".join(f"{k} {v}" for k, v in data.items()) if isinstance(data, Mapping) else ""
