"""Read a task from the Hugging Face hub or a local dataset folder, through `datasets`.

Names: "glue/sst2" (a task of a known benchmark), "org/name", "org/name:config", or a folder that `load_dataset` or
`load_from_disk` reads. Without a network only cached datasets load, and a failure takes seconds instead of the half
minute of the hub client's retries.
"""

from __future__ import annotations

import difflib
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from peftsearch.errors import TaskError, one_line
from peftsearch.options import TaskOptions
from peftsearch.tasks.embedded import EMBEDDED
from peftsearch.tasks.kinds import Kind
from peftsearch.tasks.reading.answers import asks_questions, build_questions, question_columns
from peftsearch.tasks.reading.build import Tables, Wishes, build_task
from peftsearch.tasks.reading.chats import chat_column
from peftsearch.tasks.reading.columns import Columns, choose_columns
from peftsearch.tasks.reading.images import choose_image_columns, require_pillow, undecoded
from peftsearch.tasks.reading.pairs import build_pairs
from peftsearch.tasks.reading.several import build_several, columns_of, guess_note, kind_of
from peftsearch.tasks.reading.table import Table
from peftsearch.tasks.task import Task

BENCHMARKS = {"glue": "nyu-mll/glue", "super_glue": "aps/super_glue"}
METRIC_OF = {"cola": "matthews", "mrpc": "f1", "qqp": "f1", "stsb": "pearson"}
"""GLUE's metrics other than accuracy (arXiv 1804.07461), by task."""
VALIDATION_NAMES = ("validation", "validation_matched", "dev", "valid", "val", "eval")
TEST_NAMES = ("test", "test_matched")
PROBE_S = 2.0
"""Seconds to wait for an answer before the hub counts as unreachable."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Address:
    """Location of a dataset."""

    path: str
    """Argument for `load_dataset`: a hub name or a folder."""
    config: str | None
    """Name of the configuration, a subset of the dataset."""
    is_folder: bool
    """Whether the dataset is a local folder."""


def parse_address(name: str) -> Address:
    """Parse "glue/sst2", "org/name", "org/name:config" or a folder."""
    if Path(name).is_dir():
        return Address(path=name, config=None, is_folder=True)
    path, _, config = name.partition(":")
    owner, _, rest = path.partition("/")
    if owner in BENCHMARKS and (rest or config):
        return Address(path=BENCHMARKS[owner], config=rest or config, is_folder=False)
    return Address(path=path, config=config or None, is_folder=False)


def load_hub(name: str, options: TaskOptions, seed: int = 0) -> Task:
    """Load a task from the hub, its cache, or a dataset folder.

    Args:
        name: Name in one of the forms listed in the module docstring.
        options: Columns, kind and metric; None means guess, or take the benchmark's own.
        seed: Seed of the choice of validation examples, if there is no validation split.

    Raises:
        TaskError: The dataset cannot be reached, or cannot be used.
    """
    kind, metric = options.kind, options.metric
    text_column, pair_column, label_column = options.text_column, options.pair_column, options.label_column
    wished: Kind | None = "classification" if kind == "image" else None if kind == "generation" else kind
    wishes = Wishes(kind=wished, metric=metric, positive=options.positive, seed=seed, bad_rows=options.bad_rows)
    address = parse_address(name)
    data = _load(name, address)
    splits = {split: found for split in ("train", "validation", "test") if (found := _find(data, split)) is not None}
    if "train" not in splits:
        raise TaskError(
            f"task {name!r}: no split 'train' (splits: {', '.join(data)}); give its files with --train instead"
        )
    notes: list[str] = []
    features = data[splits["train"]].features
    images = None
    if kind == "image" or (kind is None and text_column is None):
        images = _image_columns(name, features, label_column, required=kind == "image")
    if images is not None:
        data = {found: undecoded(data[found], images) for found in splits.values()}
    tables = {split: _table(name, split, data[found]) for split, found in splits.items()}
    if images is None and _is_written(tables["train"], options):
        return build_pairs(_short(address), _source(name, address), tables, options, seed)
    if images is None and asks_questions(tables["train"], kind, label_column):
        columns = question_columns(tables["train"], text_column, pair_column, label_column)
        given = Tables(train=tables["train"], validation=tables.get("validation"), test=tables.get("test"))
        return build_questions(_short(address), _source(name, address), given, columns, wishes)
    several = None if images else kind_of(tables["train"], kind, text_column, label_column)
    if several is not None:
        notes += guess_note(tables["train"], several, kind)
        columns = columns_of(tables["train"], several, text_column, pair_column, label_column)
    else:
        columns = images or choose_columns(tables["train"], text_column, pair_column, label_column)
    classes = _names_of(features.get(columns.label))
    labelled = {
        split: _drop_unlabelled(table, columns.label, classes is not None, notes) for split, table in tables.items()
    }
    numbered = labelled["train"] is not None and not _are_texts(labelled["train"].columns.get(columns.label, []))
    for split, table in labelled.items():
        own = _names_of(data[splits[split]].features.get(columns.label))  # it may have an order of its own
        if table is None or columns.label not in table.columns:
            continue
        if classes is None and own is not None and numbered:
            notes.append(f"{table.where}: its classes have names and those of train numbers: joined by their numbers")
        elif own is not None:
            labelled[split] = _name_classes(table, columns.label, own)
        elif classes is not None:
            if not _are_texts(table.columns[columns.label]):
                notes.append(f"{table.where}: its classes are numbers without names: taken as those of train")
            labelled[split] = _name_classes(table, columns.label, list(classes))
    train = labelled["train"]
    if train is None:
        raise TaskError(f"task {name!r}: no row of train has a label in column {columns.label!r}; name another column")
    chosen = Tables(train=train, validation=labelled.get("validation"), test=labelled.get("test"))
    short, source = _short(address), _source(name, address)
    if several is not None:
        return build_several(short, source, chosen, columns, replace(wishes, kind=several), classes, notes)
    return build_task(
        short, source, chosen, columns, _glue_wishes(wishes, address), classes, notes, images=images is not None
    )


def _short(address: Address) -> str:
    return Path(address.path).name if address.config is None else address.config


def _source(name: str, address: Address) -> str:
    return f"{'folder' if address.is_folder else 'hub'} {name}"


def _is_written(train: Table, options: TaskOptions) -> bool:
    """Whether the task is a generation, by what the user says or by a column of chats."""
    if options.kind == "generation" or any((options.prompt_column, options.completion_column, options.template)):
        return True
    return options.kind is None and options.label_column is None and chat_column(train) is not None


def _names_of(feature: Any) -> list[str] | None:
    """Names of the classes of a feature, or of the items of a feature of lists; None where it has none."""
    feature = feature[0] if isinstance(feature, list) else getattr(feature, "feature", feature)
    return getattr(feature, "names", None)


def _image_columns(name: str, features: Any, label: str | None, required: bool) -> Columns | None:
    """The columns of a dataset of images; None for a dataset of texts."""
    columns = choose_image_columns(name, features, label)
    if columns is not None:
        require_pillow()
    elif required:
        raise TaskError(
            f"task {name!r}: no column holds images (columns: {', '.join(features)}); leave --kind image out"
        )
    return columns


def _glue_wishes(wishes: Wishes, address: Address) -> Wishes:
    """Fill in kind and metric of GLUE tasks."""
    if address.path != BENCHMARKS["glue"]:
        return wishes
    kind: Kind = "regression" if address.config == "stsb" else "classification"
    return replace(
        wishes, kind=wishes.kind or kind, metric=wishes.metric or METRIC_OF.get(address.config or "", "accuracy")
    )


def _load(name: str, address: Address) -> dict[str, Any]:
    """The splits of a dataset, by name."""
    import datasets

    try:
        if address.is_folder and (Path(address.path) / "dataset_dict.json").exists():
            return dict(datasets.load_from_disk(address.path))
        if address.is_folder and (Path(address.path) / "state.json").exists():
            return {"train": datasets.load_from_disk(address.path)}
        with _offline_unless(address.is_folder or _hub_answers()):
            return dict(datasets.load_dataset(address.path, address.config))
    except Exception as fault:  # dataset loaders raise anything; the reason goes into the message
        raise TaskError(_why(name, address, fault)) from fault


def _why(name: str, address: Address, fault: Exception) -> str:
    reason = f"task {name!r}: cannot be loaded ({one_line(fault, 160)})"
    if address.is_folder:
        return f"{reason}; a folder of csv, jsonl or parquet files, or one of save_to_disk, is needed"
    near = difflib.get_close_matches(name.rpartition("/")[2], EMBEDDED, n=1)
    hint = f"did you mean the embedded task {near[0]!r}? Else check" if near else "check"
    return (
        f"{reason}; {hint} the name and the network, or use --train FILE or an embedded task "
        f"({', '.join(sorted(EMBEDDED))})"
    )


def _hub_answers() -> bool:
    """Whether the hub answers within `PROBE_S`, through the proxies of the environment."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        urllib.request.urlopen(urllib.request.Request(constants.ENDPOINT, method="HEAD"), timeout=PROBE_S).close()
    except urllib.error.HTTPError:
        return True
    except (OSError, ValueError):
        return False
    return True


@contextmanager
def _offline_unless(online: bool) -> Iterator[None]:
    """Make `datasets` read only its cache, without retries, while the hub is unreachable."""
    from datasets import config
    from huggingface_hub import constants

    before = config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE
    if not online:
        config.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE = before


def _find(data: Iterable[str], split: str) -> str | None:
    names = {"train": ("train",), "validation": VALIDATION_NAMES, "test": TEST_NAMES}[split]
    there = set(data)
    return next((candidate for candidate in names if candidate in there), None)


def _table(name: str, split: str, dataset: Any) -> Table:
    columns = {column: list(dataset[column]) for column in dataset.column_names}
    return Table(where=f"{name}, {split}", columns=columns, lines=list(range(1, len(dataset) + 1)), unit="row")


def _drop_unlabelled(table: Table, column: str, has_classes: bool, notes: list[str]) -> Table | None:
    """Drop rows without a label; None where no row is left.

    A hidden label is marked by -1. In a column of plain numbers, -1 counts as a label unless the whole split has it.
    """
    labels = table.columns.get(column)
    if labels is None or not (has_classes or all(label == -1 for label in labels)):
        return table
    kept = [i for i, label in enumerate(labels) if label != -1]
    return table.keep(kept, "have no label (-1)", notes)


def _are_texts(values: list[Any]) -> bool:
    """Whether labels, or those in lists, are names."""
    return any(isinstance(label, str) for value in values for label in (value if isinstance(value, list) else [value]))


def _name_classes(table: Table, column: str, classes: list[str]) -> Table:
    named = [_named(label, classes) for label in table.columns[column]]
    return replace(table, columns={**table.columns, column: named})


def _named(label: Any, classes: list[str]) -> Any:
    """A label, or each of several, by its name."""
    if isinstance(label, list):
        return [_named(each, classes) for each in label]
    if isinstance(label, int):
        return classes[label] if 0 <= label < len(classes) else None  # -1 and -100 mark what has no label
    return label
