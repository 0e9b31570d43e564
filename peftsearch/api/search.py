"""Search from Python, with the objects of a session."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from peftsearch.api.objects import keep_data, keep_model
from peftsearch.api.result import Result
from peftsearch.errors import ConfigError
from peftsearch.options import Asked, MachineOptions, TaskOptions, TrainingOptions, TunedModelOptions
from peftsearch.searcher.options import EngineOptions, RunOptions, SearchOptions, StudyOptions, read_choices
from peftsearch.searcher.progress import choose_reporter
from peftsearch.tasks.own_metric import register

if TYPE_CHECKING:
    from peftsearch.api.objects import Examples, Model
    from peftsearch.searcher.callbacks import Callback


def search(
    model: Model | None = None,
    train_dataset: Examples | None = None,
    eval_dataset: Examples | None = None,
    test_dataset: Examples | None = None,
    *,
    budget: str | int,
    tokenizer: Any = None,
    task: str | None = None,
    kind: Asked | None = None,
    metric: str | Callable[[Any], Any] | None = None,
    text_column: str | None = None,
    pair_column: str | None = None,
    label_column: str | None = None,
    prompt_column: str | None = None,
    completion_column: str | None = None,
    template: str | None = None,
    positive: str | None = None,
    bad_rows: Literal["error", "drop"] | None = None,
    max_train: int | None = None,
    space: str = "hybrid",
    strategy: str = "race",
    time: str | None = None,
    trials: int | None = None,
    patience: int | None = None,
    epochs: float | None = None,
    steps: int | None = None,
    search_steps: int | None = None,
    seeds: int | None = None,
    select: Literal["loss", "metric"] | None = None,
    margin: float = 0.5,
    prefer: Literal["best", "small"] = "best",
    confirm_baselines: int | None = None,
    baselines: str | None = None,
    deploy: Literal["any", "peft", "merged"] = "any",
    objective: str = "score",
    max_memory: str | None = None,
    max_latency_overhead: str | None = None,
    count_head: bool = False,
    quantize: str | None = None,
    learning_rate: float | None = None,
    head: Literal["probe", "random"] | None = None,
    head_learning_rate: float | None = None,
    batch_size: int | None = None,
    max_length: int | Literal["auto"] | None = None,
    dropout: bool | None = None,
    class_weights: Literal["none", "balanced"] | None = None,
    label_smoothing: float | None = None,
    accumulate: int | None = None,
    gradient_checkpointing: bool | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    anatomy: str | os.PathLike[str] | None = None,
    subspace: str | os.PathLike[str] | None = None,
    device: str | None = None,
    dtype: str | None = None,
    threads: int | None = None,
    workers: int | None = None,
    engine: Literal["local", "ray"] = "local",
    seed: int = 0,
    name: str | None = None,
    runs: str | os.PathLike[str] = "runs",
    storage: str = "",
    track: str | None = None,
    callbacks: Sequence[Callback] = (),
    progress: bool = True,
) -> Result:
    """Search for the design that scores best within a budget, confirm it, and return what was found.

    The same call resumes an interrupted search, and returns a finished one at once. Options are those of
    `peftsearch run`, under the same names; None means the default.

    Args:
        model: Hub id, folder, or a loaded transformers model, which is saved once under `runs`; None for the embedded
            MiniLM-L6.
        train_dataset: `datasets.Dataset`, DataFrame, list of dicts, torch `Dataset` of dicts, or a file. Examples may
            be tokenised (`input_ids`, `labels`); batches are padded with the tokenizer's token.
        eval_dataset: Examples that rank designs; None splits some off.
        test_dataset: Examples that the verdict is about; None sets half of the validation aside.
        budget: Trainable parameters, excluding the task head: "0.1%", "22.7k", 22_700.
        tokenizer: Tokenizer or image processor of a loaded model.
        task: Embedded task or hub data set, in place of the data sets.
        kind: Kind of task; None guesses between classification and regression.
        metric: Name of a metric, `module:function`, or a function in the manner of `compute_metrics`: it takes a
            `transformers.EvalPrediction` and returns a number, or a dict whose first value is the score.
        text_column: Column of the text.
        pair_column: Column of the second text of a pair.
        label_column: Column of the class or the regression target.
        prompt_column: Column of the prompt, for generation.
        completion_column: Column of the completion, for generation.
        template: Template that joins prompt and completion.
        positive: Class that f1 is of.
        bad_rows: Whether rows that cannot be read are refused, or left out and told.
        max_train: Maximum number of training examples.
        space: Search space: a name or a YAML file.
        strategy: Strategy: a name or a YAML file.
        time: Time for the whole run, such as "30m" or "2h".
        trials: Designs to train, excluding baselines and confirmation.
        patience: Trials without a better one after which the search ends.
        epochs: Length of a training in passes over the data.
        steps: Length of a training in optimizer steps.
        search_steps: Step at which a trial pauses and is ranked.
        seeds: Most trainings per confirmed design.
        select: What ranks trials: the validation loss or the metric.
        margin: Points of the score within which two designs count as equally good.
        prefer: Pick: the best mean, or the cheapest that is not inferior to the best baseline.
        confirm_baselines: Baselines to confirm.
        baselines: Reference trainings outside the budget: "full", "top-2".
        deploy: Search only designs that an adapter of HF peft holds, or that merge into a plain checkpoint.
        objective: Comma-separated objectives.
        max_memory: Limit on the memory of a training step.
        max_latency_overhead: Limit on the latency overhead after merging.
        count_head: Whether the budget includes the task head.
        quantize: "nf4" or "int8" packs the frozen weights.
        learning_rate: Base learning rate, which each method scales.
        head: Start of the task head.
        head_learning_rate: Learning rate of the task head.
        batch_size: Examples per optimizer step.
        max_length: Maximum number of tokens of a text.
        dropout: Whether the frozen backbone drops out.
        class_weights: Weights of the classes in the training loss.
        label_smoothing: Share of the target that is spread over all classes in the training loss.
        accumulate: Parts that a batch is cut into, to save memory.
        gradient_checkpointing: Whether to save memory for a third more time.
        revision: Commit, tag or branch of a hub model.
        trust_remote_code: Whether code that comes with a hub model may run.
        anatomy: YAML file that describes the blocks of an unsupported model.
        subspace: Subspace of prompts for the method ipt, made by `peftsearch subspace`.
        device: cpu, cuda or cuda:1; None is CUDA if available.
        dtype: Precision: auto, fp32 or bf16.
        threads: CPU threads; None takes the cores that are free.
        workers: Processes that train side by side.
        engine: local or ray.
        seed: Random seed of the whole run.
        name: Folder of the study under `runs`; None derives it from the settings.
        runs: Folder of all studies.
        storage: Optuna storage URL; empty for SQLite in the study's folder.
        track: Trackers to log to, such as "tensorboard"; separate several by commas.
        callbacks: Functions of an Optuna study and a trial, called for every trial that ends; an error in one ends the
            search, which the same call resumes.
        progress: Whether to show the progress.

    Returns:
        The result; the folder of the run holds all of it.

    Raises:
        PeftSearchError: The options, the data, the model, the budget or the storage are invalid.
        AllTrialsFailed: No trial has a score.
    """
    folder = Path(runs)
    if callable(metric):
        metric, can_import = register(metric)
        if not can_import and (engine == "ray" or (workers or 1) > 1):
            raise ConfigError(
                f"metric {metric}: other processes cannot import it; put the function into a module, or leave workers "
                "and engine out"
            )
        workers = workers if can_import else 1
    as_files = kind == "generation" or any((prompt_column, completion_column, template))
    data = keep_data(train_dataset, eval_dataset, test_dataset, folder, as_files=as_files)
    if data and task is not None:
        raise ConfigError(f"task {task!r} and train_dataset both say what to train on; give one of them")
    data.setdefault("name", task)
    options = RunOptions(
        budget=str(budget),
        baselines=baselines,
        count_head=count_head,
        quantize=quantize,
        seed=seed,
        model=TunedModelOptions(
            name=keep_model(model, tokenizer, folder),
            revision=revision,
            trust_remote_code=trust_remote_code,
            anatomy=None if anatomy is None else Path(anatomy),
            subspace=None if subspace is None else Path(subspace),
        ),
        task=TaskOptions(
            **data,
            kind=kind,
            metric=metric,
            text_column=text_column,
            pair_column=pair_column,
            label_column=label_column,
            prompt_column=prompt_column,
            completion_column=completion_column,
            template=template,
            positive=positive,
            bad_rows=bad_rows,
            max_train=max_train,
        ),
        search=SearchOptions(
            space=space,
            strategy=strategy,
            time=time,
            trials=trials,
            patience=patience,
            epochs=epochs,
            steps=steps,
            search_steps=search_steps,
            seeds=seeds,
            select=select,
            margin=margin,
            prefer=prefer,
            confirm_baselines=confirm_baselines,
            deploy=deploy,
            objective=objective,
            max_memory=max_memory,
            max_latency_overhead=max_latency_overhead,
        ),
        training=TrainingOptions(
            learning_rate=learning_rate,
            head=head,
            head_learning_rate=head_learning_rate,
            batch_size=batch_size,
            max_length=max_length,
            dropout=dropout,
            class_weights=class_weights,
            label_smoothing=label_smoothing,
            accumulate=accumulate,
            gradient_checkpointing=gradient_checkpointing,
        ),
        machine=MachineOptions(device=device, dtype=dtype, threads=threads),
        engine=EngineOptions(name=engine, workers=workers),
        study=StudyOptions(name=name, runs=folder, storage=storage, track=track),
    )
    read_choices(options)  # before anything heavy is imported
    from peftsearch.searcher.finished import find_finished

    if (known := find_finished(options)) is not None:
        return Result(known[0])
    from peftsearch.searcher.run import run_study

    setup, _ = run_study(options, choose_reporter(progress), callbacks=callbacks)
    return Result(setup.path, storage=storage)
