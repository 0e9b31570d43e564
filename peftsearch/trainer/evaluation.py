"""`peftsearch evaluate`: the metric of a finished training on a split."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from peftsearch.engine.scoring import predictions_of
from peftsearch.errors import ConfigError, Diverged, PeftSearchError, TaskError, one_line
from peftsearch.tasks import resolve_task
from peftsearch.tasks.encoding.encode import require_inputs
from peftsearch.tasks.metrics import choose_metric, score
from peftsearch.tasks.reading.build import labelled_split
from peftsearch.tasks.reading.columns import choose_columns
from peftsearch.tasks.reading.images import IN_FOLDERS, read_class_folders, require_known, require_pillow
from peftsearch.tasks.reading.table import read_table
from peftsearch.tasks.task import Split
from peftsearch.trainer.texts import evaluate_texts
from peftsearch.trainer.trained import Trained, load_trained


def evaluate(arguments: argparse.Namespace) -> int:
    """Load the model, score it, print the score.

    Raises:
        PeftSearchError: The folder, the model or the data cannot be used.
    """
    if arguments.task is not None and arguments.test is not None:
        raise ConfigError("--task and --test both say what to evaluate on; give one of them")
    trained = load_trained(arguments.folder, arguments)
    metric = choose_metric(trained.settings["task"]["kind"], arguments.metric or trained.settings["task"]["metric"])
    trained.check_columns(arguments)
    if trained.is_generation:
        return evaluate_texts(trained, arguments)
    where, split = _split(trained, arguments)
    try:
        predictions = predictions_of(trained.logits(split), regression=trained.is_regression)
    except Diverged as error:
        raise TaskError(f"{arguments.folder}: {error}") from error
    value = score(metric, predictions, split.labels, len(trained.labels))
    if arguments.json:
        print(json.dumps({"metric": metric, "score": value, "n": len(split), "data": where}, ensure_ascii=False))
    else:
        print(f"{metric} on {where} ({len(split)} examples): {value:.4f}")
    return 0


def _split(trained: Trained, arguments: argparse.Namespace) -> tuple[str, Split]:
    """What to evaluate on, and its name."""
    named = [arguments.text_column, arguments.pair_column, arguments.label_column]
    if trained.has_images and any(named[:2]):
        raise ConfigError("--text-column and --pair-column are not for images; leave them out")
    if arguments.test is not None and trained.has_images:
        return str(arguments.test), _image_folder(trained, arguments.test)
    if arguments.test is not None:
        table = read_table(arguments.test)
        known = trained.columns
        if known is not None:
            names = [known.text, known.pair, known.label]
            named = [own or (name if name in table.columns else None) for own, name in zip(named, names, strict=True)]
        columns = choose_columns(table, *named)
        _require_pairs(trained, columns.pair is not None, str(arguments.test))
        return str(arguments.test), labelled_split(table, columns, trained.labels)
    data = dict(trained.settings["task"]["data"])
    if arguments.task is not None:
        data = dict.fromkeys(data) | {"task": arguments.task, "seed": data["seed"]}
    data |= {key: name for key, name in zip(("text_column", "pair_column", "label_column"), named, strict=True) if name}
    task = _task(trained, data, own=arguments.task is None)
    _require_pairs(trained, task.train.pairs is not None, task.name)
    name = arguments.split or ("test" if task.test is not None else "validation")
    split = task.test if name == "test" else task.validation
    if split is None:
        raise TaskError(f"task {task.name!r}: has no test split; give --split validation, or --test FILE")
    if trained.is_regression:
        return f"{task.name}, {name}", split
    return f"{task.name}, {name}", _relabelled(trained, split, task.labels, task.name)


def _image_folder(trained: Trained, path: Path) -> Split:
    """The images of a folder of class folders, with the classes that the model knows."""
    require_pillow()
    table = read_class_folders(path, [])
    require_known(table, set(trained.labels))
    return labelled_split(table, IN_FOLDERS, trained.labels, images=True)


def _task(trained: Trained, data: dict[str, Any], own: bool) -> Any:
    name = data.pop("task")
    try:
        task = resolve_task(name, **data)
    except PeftSearchError as error:
        if not own:
            raise
        source = trained.settings["task"]["source"]
        raise TaskError(
            f"{error} ({trained.path} was trained on {source}; --task or --test names other data)"
        ) from error
    kind = trained.settings["task"]["kind"]
    if task.kind != kind:
        raise TaskError(f"task {task.name!r}: is a {task.kind}, {trained.path} was trained for {kind}")
    require_inputs(f"task {task.name!r}", task.train, trained.loaded.tokenizer)
    return task


def _require_pairs(trained: Trained, pairs: bool, where: str) -> None:
    wanted = trained.settings["task"]["pairs"]
    if pairs != wanted:
        words = ("pairs of texts", "single texts")
        raise TaskError(
            f"{where}: has {words[not pairs]}, {trained.path} was trained on {words[not wanted]}; see --pair-column"
        )


def _relabelled(trained: Trained, split: Split, labels: tuple[str, ...], name: str) -> Split:
    """The split with the indices that the model knows the classes by."""
    if labels == trained.labels:
        return split
    unknown = [label for label in labels if label not in trained.labels]
    if unknown:
        known = one_line(", ".join(trained.labels), 120)
        raise TaskError(
            f"task {name!r}: label {one_line(unknown[0], 60)!r} is not one that {trained.path} was "
            f"trained on (known: {known})"
        )
    indices = [trained.labels.index(label) for label in labels]
    return replace(split, labels=[indices[int(label)] for label in split.labels])
