"""What `peftsearch evaluate` and `peftsearch predict` do with a finished training of a generation."""

from __future__ import annotations

import argparse
import json

from peftsearch.engine.generation import generate, score_pairs, score_texts
from peftsearch.errors import ConfigError, Diverged, PeftSearchError, TaskError
from peftsearch.tasks import resolve_task
from peftsearch.tasks.metrics import choose_metric
from peftsearch.tasks.reading.columns import Columns
from peftsearch.tasks.reading.pairs import pairs_of, prompts_of
from peftsearch.tasks.reading.table import Table, read_table
from peftsearch.tasks.task import Split
from peftsearch.trainer.results import as_told
from peftsearch.trainer.trained import Trained


def evaluate_texts(trained: Trained, arguments: argparse.Namespace) -> int:
    """Score prompts and completions: by the metric that is asked for, or by all.

    Raises:
        PeftSearchError: The data cannot be used, or the metric.
    """
    metric = choose_metric("generation", arguments.metric or trained.settings["task"]["metric"])
    where, split = _split(trained, arguments)
    encoded = trained.encoded(split)
    try:
        if arguments.metric is None:
            scores = score_texts(trained.loaded.model, encoded, **trained.evaluation_options)
        else:
            scores = {metric: score_pairs(trained.loaded.model, encoded, metric, **trained.evaluation_options)[0]}
    except Diverged as error:
        raise TaskError(f"{arguments.folder}: {error}") from error
    told = as_told(scores) if "log_likelihood" in scores else scores
    n = {"n": len(split), "n_prompts": len(encoded.groups)}
    if arguments.json:
        facts = {"metric": metric, "score": scores[metric], **n, "data": where, "scores": told}
        print(json.dumps(facts, ensure_ascii=False))
        return 0
    for name, value in told.items():
        print(f"{name} on {where} ({n['n_prompts']} prompts, {n['n']} references): {value:.4f}")
    return 0


def _split(trained: Trained, arguments: argparse.Namespace) -> tuple[str, Split]:
    """What to evaluate on, and its name."""
    if arguments.task is not None:
        raise ConfigError(f"--task: {trained.path} was trained on a generation, which is read from files; give --test")
    data = dict(trained.settings["task"]["data"])
    if arguments.test is not None:
        table, template = read_table(arguments.test), data.get("template")
        given = arguments.prompt_column, arguments.completion_column
        return str(arguments.test), pairs_of(table, *given, _columns(trained), template)
    data |= {"kind": "generation"}
    try:
        task = resolve_task(data.pop("task"), **data)
    except PeftSearchError as error:
        source = trained.settings["task"]["source"]
        raise TaskError(f"{error} ({trained.path} was trained on {source}; --test names other data)") from error
    name = arguments.split or ("test" if task.test is not None else "validation")
    split = task.test if name == "test" else task.validation
    if split is None:
        raise TaskError(f"task {task.name!r}: has no test split; give --split validation, or --test FILE")
    return f"{task.name}, {name}", split


def written_texts(trained: Trained, table: Table, prompt: str | None) -> list[str]:
    """A text for every row of a table; equal prompts are continued once.

    Raises:
        TaskError: The column of prompts is not there, or a prompt is missing.
    """
    template = trained.settings["task"]["data"].get("template")
    encoded = trained.encoded(prompts_of(table, prompt, _columns(trained), template))
    made = generate(trained.loaded.model, encoded, **trained.evaluation_options)
    texts = [""] * len(encoded)
    for rows, text in zip(encoded.groups, made, strict=True):
        for row in rows:
            texts[row] = text
    return texts


def _columns(trained: Trained) -> Columns:
    columns = trained.columns
    assert columns is not None, "a generation is read from files"
    return columns
