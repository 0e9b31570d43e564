"""Tasks from keyword arguments, as the options of the command line are."""

from collections.abc import Callable
from pathlib import Path

from peftsearch import tasks
from peftsearch.options import TaskOptions
from peftsearch.tasks.reading import files, hub


def resolve_task(name=None, *, seed=0, **fields):
    return tasks.resolve_task(_options(name=name, **fields), seed)


def load_files(train, validation=None, test=None, *, seed=0, **fields):
    return files.load_files(_options(train=train, validation=validation, test=test, **fields), seed)


def load_hub(name, *, seed=0, **fields):
    return hub.load_hub(name, _options(**fields), seed)


def _options(**fields):
    paths = {k: Path(v) for k, v in fields.items() if k in ("train", "validation", "test") and v is not None}
    return TaskOptions(**{**fields, **paths})


Write = Callable[[str, str | bytes], Path]
"""Writes a file of a name and a content, and gives its path: the fixture `write`."""
FOUR = "text,label\ngood one,pos\nbad one,neg\nfine one,pos\npoor one,neg\n"
