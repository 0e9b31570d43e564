"""Keep the objects of a Python session as files, so that a run can be resumed, extended and trained elsewhere.

Data and models are written once, under the SHA-256 of their content.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from peftsearch.errors import ConfigError, TaskError, one_line
from peftsearch.files import staged

if TYPE_CHECKING:
    import datasets
    import pandas as pd
    from torch.utils.data import Dataset as TorchDataset
    from transformers import PreTrainedModel

    Examples: TypeAlias = (
        str | PathLike[str] | datasets.Dataset | pd.DataFrame | Sequence[Mapping[str, Any]] | TorchDataset[Any]
    )
    Model: TypeAlias = str | PathLike[str] | PreTrainedModel

INPUTS = ".inputs"
"""Folder under the runs' folder that holds what was given as objects."""
_SPLITS = ("train", "validation", "test")


def keep_data(
    train: Examples | None, validation: Examples | None, test: Examples | None, runs: Path, *, as_files: bool
) -> dict[str, Any]:
    """Keep the examples of a task.

    Args:
        train: Training examples: a file, a `datasets.Dataset`, a DataFrame, mappings, or a torch `Dataset` of mappings.
        validation: Validation examples, in one of these forms.
        test: Test examples, in one of these forms.
        runs: Folder of the runs.
        as_files: Whether the task reads files instead of a folder of a dataset.

    Returns:
        Fields of `TaskOptions`: files, or the name of a folder.

    Raises:
        TaskError: The examples have no columns, or files are mixed with objects.
    """
    asked = zip(_SPLITS, (train, validation, test), strict=True)
    given: dict[str, Any] = {split: data for split, data in asked if data is not None}
    if not given:
        return {}
    if "train" not in given:
        raise TaskError("eval_dataset or test_dataset is given without train_dataset; give it too")
    paths = {split: Path(data) for split, data in given.items() if isinstance(data, str | PathLike)}
    if len(paths) == len(given):
        return dict(paths)
    if paths:
        raise TaskError(
            f"{next(iter(paths))} is a file and another split an object; give all as files or all as objects"
        )
    import datasets

    tables = {split: _dataset(split, data) for split, data in given.items()}
    digest = hashlib.sha256()
    for split, table in tables.items():
        digest.update(f"{split} {as_files}".encode())
        _digest(table, digest)
    folder = runs.resolve() / INPUTS / f"data-{digest.hexdigest()[:12]}"

    def write(stage: Path) -> None:
        if as_files:
            for split, table in tables.items():
                table.to_parquet(stage / f"{split}.parquet")
        else:
            datasets.DatasetDict(tables).save_to_disk(stage / "data")

    _once(folder, write)
    if as_files:
        return {split: folder / f"{split}.parquet" for split in tables}
    return {"name": str(folder / "data")}


def keep_model(model: Model | None, tokenizer: Any, runs: Path) -> str | None:
    """Keep a model.

    Args:
        model: A hub id, a folder, or a loaded model; None is the embedded one.
        tokenizer: The tokenizer or image processor of a loaded model.
        runs: Folder of the runs.

    Returns:
        Hub id or folder; None for the embedded model.

    Raises:
        ConfigError: The model carries adapters, has no tokenizer, or cannot be saved.
    """
    if model is None or isinstance(model, str | PathLike):
        if tokenizer is not None:
            raise ConfigError("tokenizer: is for a loaded model; a hub id or a folder has its own, so leave it out")
        return None if model is None else str(model)
    refuse_wrapped(model)
    if tokenizer is None:
        raise ConfigError(f"model {type(model).__name__}: give its tokenizer (or image processor) too")
    import torch

    digest = hashlib.sha256(str(model.config.to_json_string()).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    with tempfile.TemporaryDirectory() as place:
        tokenizer.save_pretrained(place)
        for path in sorted(Path(place).rglob("*")):
            if path.is_file():
                digest.update(path.name.encode() + path.read_bytes())
    folder = runs.resolve() / INPUTS / f"model-{digest.hexdigest()[:12]}"

    def write(stage: Path) -> None:
        try:
            model.save_pretrained(stage)
            tokenizer.save_pretrained(stage)
        except (ValueError, NotImplementedError, AttributeError) as error:
            raise ConfigError(f"model {type(model).__name__}: cannot be saved: {one_line(error)}") from error

    _once(folder, write)
    return str(folder)


def refuse_wrapped(model: Any) -> None:
    """Refuse a model that carries adapters already.

    Raises:
        ConfigError: It is a PeftModel, or carries an architecture of peftsearch.
    """
    if hasattr(model, "peft_config") or type(model).__name__.startswith("PeftModel"):
        raise ConfigError(
            f"model {type(model).__name__}: carries adapters of HF peft; unwrap it first: model.unload(), or "
            "model.merge_and_unload() to keep what they learned"
        )
    if hasattr(model, "peftsearch"):
        raise ConfigError(
            f"model {type(model).__name__}: carries an architecture already; peftsearch.remove(model) first"
        )


def _dataset(split: str, data: Any) -> datasets.Dataset:
    """One split as a `datasets.Dataset`."""
    import datasets
    import pandas as pd

    if isinstance(data, datasets.DatasetDict | datasets.IterableDataset | datasets.IterableDatasetDict):
        raise TaskError(f"{split}: is a {type(data).__name__}; give one datasets.Dataset for each split")
    if isinstance(data, datasets.Dataset):
        return data
    if isinstance(data, pd.DataFrame):
        return _table(split, lambda: datasets.Dataset.from_pandas(data, preserve_index=False))
    try:
        rows = [dict(data[i]) for i in range(len(data))]
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise TaskError(
            f"{split}: is a {type(data).__name__}; give a datasets.Dataset, a DataFrame, a list of dicts, or a torch "
            f"Dataset whose items are mappings ({one_line(error)})"
        ) from error
    if not rows:
        raise TaskError(f"{split}: has no examples")
    names = list(dict.fromkeys(key for row in rows for key in row))
    columns = {name: [_plain(row.get(name)) for row in rows] for name in names}
    return _table(split, lambda: datasets.Dataset.from_dict(columns))


def _plain(value: Any) -> Any:
    """A value without its array."""
    return value.tolist() if hasattr(value, "tolist") else value


def _table(split: str, make: Callable[[], datasets.Dataset]) -> datasets.Dataset:
    """Make a table; a column of mixed types is a fault of the user."""
    import pyarrow as pa  # type: ignore[import-untyped]  # it ships no types

    try:
        return make()
    except (pa.ArrowException, ValueError, TypeError) as error:
        raise TaskError(
            f"{split}: cannot be read as a table: {one_line(error, 160)}; make each column of one type"
        ) from error


def _digest(table: datasets.Dataset, digest: Any) -> None:
    """Add the content of a table to a hash."""
    import pyarrow as pa

    class Sink:
        """A file whose content goes into the hash."""

        closed = False

        def write(self, content: bytes) -> int:
            digest.update(content)
            return len(content)

        def flush(self) -> None:
            """Do nothing: nothing is held back."""

    plain = table.flatten_indices() if table._indices is not None else table
    content = plain.with_format("arrow")[:].combine_chunks()
    with pa.ipc.new_stream(pa.PythonFile(Sink(), mode="w"), content.schema) as stream:
        stream.write_table(content)


def _once(folder: Path, write: Callable[[Path], None]) -> None:
    """Write a folder unless it exists; a folder appears whole or not at all."""
    if not folder.exists():
        # Another process that writes the same at the same time writes equal files, which may replace these.
        with staged(folder, overwrite=True) as stage:
            write(stage)
