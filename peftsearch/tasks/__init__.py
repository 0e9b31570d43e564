"""Tasks to train and score on: generated ones, files, dataset folders, and datasets of the hub.

Heavy imports wait until a task is loaded.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from peftsearch.errors import TaskError, unknown_name
from peftsearch.options import Asked, TaskOptions, given
from peftsearch.tasks.embedded import EMBEDDED, load_embedded
from peftsearch.tasks.kinds import Kind
from peftsearch.tasks.task import Split, Task

DEFAULT_TASK = "sentiment"
OF_TEXTS = ("text_column", "pair_column", "label_column")
"""Options that name columns of labelled texts."""
OF_PAIRS = ("prompt_column", "completion_column", "template")
"""Options for generation only."""


def resolve_task(options: TaskOptions, seed: int = 0) -> Task:
    """Load the task that the options describe.

    Args:
        options: Name or files of the task; the default task if there is neither. A name refers to an embedded task, a
            dataset of the hub ("glue/sst2", "org/name", "org/name:config") or a dataset folder.
        seed: Seed of the generated sentences and of the examples that are split off.

    Raises:
        TaskError: There is no such task, the options contradict each other, or the data cannot be used.
    """
    from peftsearch.tasks.reading.build import limit_train

    return limit_train(_find(options, seed), options.max_train, seed)


def names_of(options: TaskOptions) -> list[str | None]:
    """The names in a comma-separated `--task`; None for the default task or files.

    Raises:
        TaskError: A name is empty.
    """
    if options.name is None or Path(options.name).exists():
        return [options.name]
    names = [name.strip() for name in options.name.split(",")]
    if not all(names):
        raise TaskError(f"--task {options.name!r} contains an empty name; write it as in glue/rte,glue/mrpc")
    return list(names)


def check_task(options: TaskOptions) -> None:
    """Check all that the options alone show: contradictions, unknown names and files that do not exist.

    Args:
        options: Name or files of one task.

    Raises:
        TaskError: There is no such task, metric or file, or the options contradict each other.
    """
    name, train = options.name, options.train
    if train is None and (options.validation is not None or options.test is not None):
        raise TaskError("task: a validation or test file is given without a training file; add --train FILE")
    if train is not None and name is not None:
        raise TaskError(f"task: both the name {name!r} and the file {str(train)!r} are given; leave one out")
    if options.kind == "generation" or given(options, *OF_PAIRS):
        _check_generation(options)
    elif options.kind == "image":
        _check_images(options)
    if train is None:
        _check_name(DEFAULT_TASK if name is None else name, options)
    if options.metric is not None:
        from peftsearch.tasks.metrics import check_metric

        check_metric(options.metric)
    from peftsearch.tasks.reading.images import check_folder
    from peftsearch.tasks.reading.table import check_file

    for path in (options.train, options.validation, options.test):
        if path is not None and options.kind == "image":
            check_folder(path)
        elif path is not None:
            check_file(path)


def _find(options: TaskOptions, seed: int) -> Task:
    check_task(options)
    name, train = options.name, options.train
    if train is not None and (options.kind == "generation" or given(options, *OF_PAIRS)):
        from peftsearch.tasks.reading.pairs import load_pairs

        return load_pairs(options, seed)
    if options.kind == "image" and train is not None:
        from peftsearch.tasks.reading.images import load_image_folders

        return load_image_folders(options, seed)
    if train is not None:
        from peftsearch.tasks.reading.files import load_files

        return load_files(options, seed)
    name = DEFAULT_TASK if name is None else name
    if name in EMBEDDED:
        return _embedded(name, options, seed)
    from peftsearch.tasks.reading.hub import load_hub

    return load_hub(name, options, seed)


def _check_name(name: str, options: TaskOptions) -> None:
    if name in EMBEDDED:
        if refused := given(options, *OF_TEXTS, "kind", "positive"):
            raise TaskError(
                f"task {name!r}: is generated and takes no {', '.join(refused)}; these are for files and datasets"
            )
        return
    if Path(name).is_file():
        raise TaskError(f"task {name!r}: is a file; give it with --train {name}")
    if "/" not in name and ":" not in name and not Path(name).is_dir():
        raise TaskError(
            f"{unknown_name('task', name, EMBEDDED)}; a dataset of the hub is org/name, a file goes to --train"
        )


def _check_generation(options: TaskOptions) -> None:
    if options.kind not in (None, "generation"):
        named = ", ".join(given(options, *OF_PAIRS))
        raise TaskError(f"task: {named} is for kind generation, but the kind is {options.kind}; leave one out")
    if options.train is None and (options.name is None or options.name in EMBEDDED):
        raise TaskError("task: give --train FILE with prompts and completions, or --task with a data set of them")
    if named := ", ".join(given(options, *OF_TEXTS, "positive")):
        raise TaskError(
            f"task: {named} is not for generation; name the columns with --prompt-column and --completion-column"
        )


def _check_images(options: TaskOptions) -> None:
    if options.train is None and options.name is None:
        raise TaskError(
            "task: images are read from folders or datasets; give --train FOLDER with a folder for each class"
        )
    if named := ", ".join(given(options, "text_column", "pair_column")):
        raise TaskError(f"task: {named} is not for images; leave it out")


def _embedded(name: str, options: TaskOptions, seed: int) -> Task:
    from peftsearch.tasks.metrics import choose_metric

    return replace(load_embedded(name, seed), metric=choose_metric("classification", options.metric))


__all__ = [
    "DEFAULT_TASK",
    "EMBEDDED",
    "Asked",
    "Kind",
    "Split",
    "Task",
    "check_task",
    "load_embedded",
    "names_of",
    "resolve_task",
]
