"""How to make the study again: its command, seed, versions and hardware."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from peftsearch.errors import ConfigError
from peftsearch.files import from_plain
from peftsearch.options import command_words
from peftsearch.report.page import Cell, Item, Section, Table, Text
from peftsearch.report.record import Record
from peftsearch.searcher.options import RunOptions, StudyOptions


def command(record: Record) -> str | None:
    """The command line that began the study; None when the settings do not hold its options.

    The same line resumes the study. A password in a storage URL is not stored and appears as stars.
    """
    try:
        options = from_plain(RunOptions, record.settings.get("options"), "options")
    except ConfigError:
        return None
    parent, storage = record.path.parent, str(record.settings.get("storage", "study.db"))
    study = StudyOptions(name=record.path.name, runs=parent, storage="" if storage == "study.db" else storage)
    references = ",".join(record.references) or None
    return shlex.join(["peftsearch", "run", *command_words(replace(options, study=study, baselines=references))])


def provenance(record: Record) -> Section:
    """Command, seed, data, versions and hardware."""
    settings, best = record.settings, record.best or {}
    line = command(record)
    items: list[Item] = []
    if line is None:
        items.append(Text(text="The options of this run are not stored; its settings are below.", kind="note"))
    else:
        items += [Text(text="The same command again resumes the study, or makes it anew in another folder."),
                  Text(text=line, kind="code")]  # fmt: skip
    strategy = settings.get("strategy")
    rows: list[list[Cell]] = [
        ["model", _joined(settings.get("model"), settings.get("revision"))],
        ["task", _joined(settings.get("task"), settings.get("task_source"))],
        ["fingerprint of the data", _text(settings.get("task_fingerprint"))],
        ["metric", record.metric],
        ["budget", _joined(settings.get("budget"), _parameters(settings.get("budget_params")))],
        ["search space", _text(settings.get("space"))],
        ["strategy", _joined(strategy.get("name"), strategy.get("description")) if isinstance(strategy, Mapping) else
         _text(strategy)],
        ["training", _pairs(settings.get("training"))],
        ["seed", _text(settings.get("seed"))],
        ["hardware", _text(best.get("hardware")) or "recorded when the run is finished"],
        ["versions", _pairs(best.get("versions")) or "recorded when the run is finished"],
        ["finished", _text(best.get("made")) or "no"],
        ["study", str(record.path)],
    ]  # fmt: skip
    items.append(Table(columns=["what", "value"], rows=[row for row in rows if row[1]]))
    return Section(title="How it was made", items=items)


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _joined(first: Any, more: Any) -> str:
    return f"{first} ({more})" if more else _text(first)


def _parameters(n_params: Any) -> str:
    return f"{n_params:,} trainable parameters" if isinstance(n_params, int) else ""


def _pairs(data: Any) -> str:
    return ", ".join(f"{k} {v}" for k, v in data.items()) if isinstance(data, Mapping) else ""
