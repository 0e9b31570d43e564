"""Evaluate and predict with a model trained for generation."""

from __future__ import annotations

from dataclasses import replace

from peftsearch.engine.generation import generate, score_pairs, score_texts
from peftsearch.errors import ConfigError, Diverged, PeftSearchError, TaskError
from peftsearch.tasks import resolve_task
from peftsearch.tasks.metrics import choose_metric
from peftsearch.tasks.reading.columns import Columns
from peftsearch.tasks.reading.pairs import pairs_of, prompts_of
from peftsearch.tasks.reading.table import Table, read_table
from peftsearch.tasks.task import Split
from peftsearch.trainer.options import EvaluateOptions
from peftsearch.trainer.trained import Evaluation, Trained, choose_split


def evaluate_texts(trained: Trained, options: EvaluateOptions) -> Evaluation:
    """Score prompts and completions: by the metric that is asked for, or by all.

    Raises:
        PeftSearchError: The data cannot be used, or the metric.
    """
    metric = choose_metric("generation", options.metric or trained.record.task.metric)
    where, split = _split(trained, options)
    encoded = trained.encoded(split)
    try:
        how = {**trained.evaluation_options, "decoding": trained.decoding}
        if options.metric is None:
            scores = score_texts(trained.loaded.model, encoded, metric, **how)
        else:
            scores = {metric: score_pairs(trained.loaded.model, encoded, metric, **how)[0]}
    except Diverged as error:
        raise TaskError(f"{options.folder}: {error}") from error
    return Evaluation(metric=metric, scores=scores, data=where, n=len(split), n_prompts=len(encoded.groups))


def _split(trained: Trained, options: EvaluateOptions) -> tuple[str, Split]:
    """What to evaluate on, and its name."""
    if options.task is not None:
        raise ConfigError(f"--task: {trained.path} was trained for generation, whose data are files; give --test")
    data = trained.data
    if options.test is not None:
        table = read_table(options.test)
        named = options.columns.prompt_column, options.columns.completion_column
        return str(options.test), pairs_of(table, *named, _columns(trained), data.options.template)
    try:
        task = resolve_task(replace(data.options, kind="generation"), data.seed)
    except PeftSearchError as error:
        source = trained.record.task.source
        raise TaskError(f"{error} ({trained.path} was trained on {source}; --test names other data)") from error
    return choose_split(task, options.split)


def written_texts(trained: Trained, table: Table, prompt: str | None) -> list[str]:
    """A text for every row of a table; equal prompts are continued once.

    Raises:
        TaskError: The column of prompts is not there, or a prompt is missing.
    """
    template = trained.data.options.template
    encoded = trained.encoded(prompts_of(table, prompt, _columns(trained), template))
    made = generate(trained.loaded.model, encoded, **trained.evaluation_options, decoding=trained.decoding)
    texts = [""] * len(encoded)
    for rows, text in zip(encoded.groups, made, strict=True):
        for row in rows:
            texts[row] = text
    return texts


def _columns(trained: Trained) -> Columns:
    columns = trained.columns
    assert columns is not None, "a generation is read from files"
    return columns
