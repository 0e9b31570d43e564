"""`peftsearch predict`: a label and a score, or a text, for every row of a file.

The output has the input's rows in their order, all its columns, and two more: `predicted_label`, the class, with
`predicted_score`, its probability; for a regression only `predicted_score`, in the unit of the training targets; for a
generation only `predicted_text`, written greedily.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from peftsearch.errors import ConfigError, TaskError
from peftsearch.evaluate import predictions_of
from peftsearch.tasks.build import text_split
from peftsearch.tasks.columns import choose_texts
from peftsearch.tasks.read import Table, read_table
from peftsearch.trainer.texts import written_texts
from peftsearch.trainer.trained import Trained, load_trained
from peftsearch.training import Diverged

LABEL, SCORE, TEXT = "predicted_label", "predicted_score", "predicted_text"
SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")


def predict(arguments: argparse.Namespace) -> int:
    """Read, predict, write.

    Raises:
        PeftSearchError: The folder, the model, the input or the output cannot be used; nothing is written then.
    """
    _check_output(arguments.output, arguments.input, arguments.overwrite)
    table = read_table(arguments.input)
    for name in (LABEL, SCORE, TEXT):
        if name in table.columns:
            raise TaskError(f"{table.where}: has a column {name!r} already, which the output writes; rename it")
    trained = load_trained(arguments.folder, arguments)
    trained.check_columns(arguments)
    if trained.is_generation:
        made = {TEXT: written_texts(trained, table, arguments.prompt_column)}
    else:
        made = _predictions(trained, table, arguments)
    _write(arguments.output, {**table.columns, **made})
    print(f"{len(table)} predictions: {arguments.output}")
    return 0


def _predictions(trained: Trained, table: Table, arguments: argparse.Namespace) -> dict[str, list[Any]]:
    text, pair = choose_texts(table, arguments.text_column, arguments.pair_column, trained.columns)
    if (pair is not None) != trained.settings["task"]["pairs"]:
        wanted = "pairs of texts: name --pair-column" if pair is None else "single texts: leave --pair-column out"
        raise TaskError(f"{table.where}: {arguments.folder} was trained on {wanted}")
    try:
        logits = trained.logits(text_split(table, text, pair))
        values = predictions_of(logits, regression=trained.is_regression)
    except Diverged as error:
        raise TaskError(f"{arguments.folder}: {error}") from error
    if trained.is_regression:
        target = trained.settings["task"]["target"]
        return {SCORE: [target["mean"] + target["scale"] * value for value in values]}
    probabilities = torch.softmax(logits, dim=-1).max(dim=-1).values
    return {LABEL: [trained.labels[int(i)] for i in values], SCORE: probabilities.tolist()}


def _check_output(output: Path, source: Path, overwrite: bool) -> None:
    if output.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"--output {output}: unknown suffix {output.suffix!r}; give one of {', '.join(SUFFIXES)}")
    if output.is_dir():
        raise ConfigError(f"--output {output}: is a folder; give a file")
    if not output.parent.is_dir():
        raise ConfigError(f"--output {output}: no such folder as {output.parent}; make it first")
    if output.exists() and source.exists() and output.samefile(source):
        raise ConfigError(f"--output {output}: is the input itself; name another file")
    if output.exists() and not overwrite:
        raise ConfigError(f"--output {output}: exists; add --overwrite to replace it, or name another")


def _write(path: Path, columns: dict[str, list[Any]]) -> None:
    """Write a table, whole or not at all.

    Raises:
        ConfigError: The disk is full, read-only or forbidden.
    """
    import pandas as pd

    frame = pd.DataFrame({name: pd.Series(values, dtype=object) for name, values in columns.items()})
    part = path.with_name(f".{path.name}.part")
    suffix = path.suffix.lower()
    try:
        if suffix == ".parquet":
            frame.infer_objects().to_parquet(part, index=False)
        elif suffix == ".jsonl":
            frame.to_json(part, orient="records", lines=True, force_ascii=False, double_precision=15)
        else:
            frame.to_csv(part, index=False, sep="\t" if suffix == ".tsv" else ",")
        part.replace(path)
    except OSError as error:
        raise ConfigError(f"--output {path}: cannot be written: {error.strerror or error}") from error
    finally:
        part.unlink(missing_ok=True)
