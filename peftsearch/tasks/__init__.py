"""Tasks: what a search trains and scores on. One table of generated ones; files, dataset folders and the hub besides.

Nothing heavy is loaded before a task is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypedDict

from peftsearch.errors import TaskError, unknown_name
from peftsearch.tasks.embedded import EMBEDDED, load_embedded
from peftsearch.tasks.kinds import Asked, Kind
from peftsearch.tasks.task import Split, Task

DEFAULT_TASK = "sentiment"


class Wanted(TypedDict):
    """The columns that the user names."""

    text_column: str | None
    pair_column: str | None
    label_column: str | None


class OfPairs(TypedDict):
    """What the user names of a generation."""

    prompt_column: str | None
    completion_column: str | None
    template: str | None


def resolve_task(
    name: str | None = None,
    *,
    train: str | Path | None = None,
    validation: str | Path | None = None,
    test: str | Path | None = None,
    text_column: str | None = None,
    pair_column: str | None = None,
    label_column: str | None = None,
    prompt_column: str | None = None,
    completion_column: str | None = None,
    template: str | None = None,
    kind: Asked | None = None,
    metric: str | None = None,
    seed: int = 0,
    max_train: int | None = None,
) -> Task:
    """Find the task that the user means.

    Args:
        name: An embedded task, a name of the hub ("glue/sst2", "org/name", "org/name:config") or a dataset folder; the
            default task where there is neither a name nor a file.
        train: A file of training examples, instead of a name; of images a folder of class folders, as the next two.
        validation: A file of validation examples.
        test: A file of test examples.
        text_column: The column of the text, of files and datasets; guessed where None, as the next two.
        pair_column: The column of the second text.
        label_column: The column of the class or target.
        prompt_column: The column of the prompt of a generation; guessed where None, as the next.
        completion_column: The column of its completion.
        template: How the two are put together; see `tasks.generation.Template`.
        kind: Classification or regression, of files and datasets, image, of folders and datasets, or generation, of
            files; guessed where None.
        metric: A name of the table of metrics; the default of the task where None.
        seed: Decides the generated sentences and what is split off.
        max_train: Number of training examples to keep; all where None.

    Raises:
        TaskError: There is no such task, the arguments contradict each other, or the data cannot be used.
    """
    from peftsearch.tasks.reading.build import limit_train

    if train is None and (validation is not None or test is not None):
        raise TaskError("task: a validation or test file is given without a training file; add --train FILE")
    if train is not None and name is not None:
        raise TaskError(f"task: both the name {name!r} and the file {str(train)!r} are given; leave one out")
    columns = Wanted(text_column=text_column, pair_column=pair_column, label_column=label_column)
    of_pairs = OfPairs(prompt_column=prompt_column, completion_column=completion_column, template=template)
    if kind == "generation" or any(value is not None for value in of_pairs.values()):
        _check_generation(train, kind, columns, of_pairs)
        from peftsearch.tasks.reading.pairs import load_pairs

        assert train is not None, "a generation has files"
        return limit_train(load_pairs(train, validation, test, **of_pairs, metric=metric, seed=seed), max_train, seed)
    if kind == "image":
        _check_images(name, train, columns)
    if kind == "image" and train is not None:
        from peftsearch.tasks.reading.images import load_image_folders

        return limit_train(load_image_folders(train, validation, test, metric=metric, seed=seed), max_train, seed)
    if train is not None:
        from peftsearch.tasks.reading.files import load_files

        assert kind != "image", "images are in folders"
        task = load_files(train, validation, test, **columns, kind=kind, metric=metric, seed=seed)
        return limit_train(task, max_train, seed)
    name = DEFAULT_TASK if name is None else name
    if name in EMBEDDED:
        return limit_train(_embedded(name, {**columns, "kind": kind}, metric, seed), max_train, seed)
    if Path(name).is_file():
        raise TaskError(f"task {name!r}: is a file; give it with --train {name}")
    if "/" not in name and ":" not in name and not Path(name).is_dir():
        raise TaskError(
            f"{unknown_name('task', name, EMBEDDED)}; a dataset of the hub is org/name, a file goes to --train"
        )
    from peftsearch.tasks.reading.hub import load_hub

    return limit_train(load_hub(name, **columns, kind=kind, metric=metric, seed=seed), max_train, seed)


def _check_generation(train: str | Path | None, kind: Asked | None, columns: Wanted, of_pairs: OfPairs) -> None:
    if kind not in (None, "generation"):
        given = ", ".join(option for option, value in of_pairs.items() if value is not None)
        raise TaskError(f"task: {given} is for kind generation, the kind asked for is {kind}; leave one out")
    if train is None:
        raise TaskError("task: a generation is read from files; give --train FILE with prompts and completions")
    named = ", ".join(option for option, value in columns.items() if value is not None)
    if named:
        raise TaskError(
            f"task: {named} is not for a generation; its columns are named with --prompt-column and --completion-column"
        )


def _check_images(name: str | None, train: str | Path | None, columns: Wanted) -> None:
    if train is None and name is None:
        raise TaskError(
            "task: images are read from folders or datasets; give --train FOLDER with a folder for each class"
        )
    named = ", ".join(option for option in ("text_column", "pair_column") if columns[option] is not None)
    if named:
        raise TaskError(f"task: {named} is not for images; leave it out")


def _embedded(name: str, refused: Mapping[str, object], metric: str | None, seed: int) -> Task:
    from peftsearch.tasks.metrics import choose_metric

    given = [option for option, value in refused.items() if value is not None]
    if given:
        raise TaskError(
            f"task {name!r}: is generated and takes no {', '.join(given)}; these are for files and datasets"
        )
    return replace(load_embedded(name, seed), metric=choose_metric("classification", metric))


__all__ = ["DEFAULT_TASK", "EMBEDDED", "Asked", "Kind", "Split", "Task", "load_embedded", "resolve_task"]
