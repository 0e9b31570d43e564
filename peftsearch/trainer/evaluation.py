"""Score a finished training on a split."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from peftsearch.engine.scoring import score_answers, score_logits
from peftsearch.errors import ConfigError, Diverged, PeftSearchError, TaskError, one_line
from peftsearch.options import TaskOptions, given
from peftsearch.tasks import resolve_task
from peftsearch.tasks.encoding.encode import require_inputs
from peftsearch.tasks.encoding.spans import EncodedSpans
from peftsearch.tasks.kinds import QUESTIONS
from peftsearch.tasks.metrics import choose_metric
from peftsearch.tasks.reading.answers import question_columns, separate_answers
from peftsearch.tasks.reading.build import labelled_split
from peftsearch.tasks.reading.columns import choose_columns
from peftsearch.tasks.reading.images import IN_FOLDERS, read_class_folders, require_known, require_pillow
from peftsearch.tasks.reading.several import columns_of, separate_split
from peftsearch.tasks.reading.table import Table, read_table
from peftsearch.tasks.task import LabelsSplit, Split, TagSplit, Task
from peftsearch.trainer.options import EvaluateOptions
from peftsearch.trainer.texts import evaluate_texts
from peftsearch.trainer.trained import Evaluation, Trained, choose_split, load_trained


def evaluate(options: EvaluateOptions) -> Evaluation:
    """Load a finished training and score it.

    Raises:
        PeftSearchError: The folder, the model or the data cannot be used.
    """
    if options.task is not None and options.test is not None:
        raise ConfigError("--task and --test both say what to evaluate on; give one of them")
    trained = load_trained(options)
    metric = choose_metric(trained.record.task.kind, options.metric or trained.record.task.metric)
    trained.check_columns(options.columns)
    if trained.is_generation:
        return evaluate_texts(trained, options)
    where, split = _split(trained, options)
    try:
        logits, encoded = trained.outputs(split)
        if isinstance(encoded, EncodedSpans):
            value, _ = score_answers(metric, logits, encoded)
            return Evaluation(metric=metric, scores={metric: value}, data=where, n=len(split))
        value = score_logits(metric, logits, encoded.labels, trained.kind, trained.labels, trained.target)
    except Diverged as error:
        raise TaskError(f"{options.folder}: {error}") from error
    return Evaluation(metric=metric, scores={metric: value}, data=where, n=len(split))


def _split(trained: Trained, options: EvaluateOptions) -> tuple[str, Split]:
    """What to evaluate on, and its name."""
    columns = options.columns
    named = [columns.text_column, columns.pair_column, columns.label_column]
    if trained.has_images and any(named[:2]):
        raise ConfigError("--text-column and --pair-column are not for images; leave them out")
    if options.test is not None and trained.has_images:
        return str(options.test), _image_folder(trained, options.test)
    if options.test is not None:
        table = read_table(options.test)
        known = trained.columns
        if known is not None:
            names = [known.text, known.pair, known.label]
            named = [own or (name if _holds(table, name) else None) for own, name in zip(named, names, strict=True)]
        if trained.kind == QUESTIONS:
            return str(options.test), separate_answers(table, question_columns(table, *named))
        if trained.kind in ("tagging", "multi_label"):
            several = columns_of(table, trained.kind, *named)
            return str(options.test), separate_split(table, several, trained.kind, trained.labels)
        chosen = choose_columns(table, *named)
        _require_pairs(trained, chosen.pair is not None, str(options.test))
        return str(options.test), labelled_split(table, chosen, trained.labels)
    data = trained.data.options if options.task is None else TaskOptions(name=options.task)
    data = replace(data, **given(columns, "text_column", "pair_column", "label_column"))
    task = _task(trained, data, own=options.task is None)
    _require_pairs(trained, task.train.pairs is not None, task.name)
    where, split = choose_split(task, options.split)
    if trained.is_regression or trained.kind == QUESTIONS:
        return where, split
    return where, _relabelled(trained, split, task.labels, task.name)


def _holds(table: Table, name: str | None) -> bool:
    """Whether a table has a column, or all of several that a comma separates."""
    return name is not None and (name in table.columns or set(map(str.strip, name.split(","))) <= set(table.columns))


def _image_folder(trained: Trained, path: Path) -> Split:
    """The images of a folder of class folders, with the classes that the model knows."""
    require_pillow()
    table = read_class_folders(path, [])
    require_known(table, set(trained.labels))
    return labelled_split(table, IN_FOLDERS, trained.labels, images=True)


def _task(trained: Trained, data: TaskOptions, own: bool) -> Task:
    try:
        task = resolve_task(data, trained.data.seed)
    except PeftSearchError as error:
        if not own:
            raise
        source = trained.record.task.source
        raise TaskError(
            f"{error} ({trained.path} was trained on {source}; --task or --test names other data)"
        ) from error
    kind = trained.record.task.kind
    if task.kind != kind:
        raise TaskError(f"task {task.name!r}: is a {task.kind}, {trained.path} was trained for {kind}")
    require_inputs(f"task {task.name!r}", task.train, trained.loaded.tokenizer)
    return task


def _require_pairs(trained: Trained, pairs: bool, where: str) -> None:
    wanted = trained.record.task.pairs
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
    if isinstance(split, TagSplit):
        return TagSplit.of(split.words, [[indices[tag] for tag in row] for row in split.tags])
    if isinstance(split, LabelsSplit):
        places = [labels.index(label) if label in labels else None for label in trained.labels]
        return replace(split, sets=[[0 if at is None else row[at] for at in places] for row in split.sets])
    return replace(split, labels=[indices[int(label)] for label in split.labels])
