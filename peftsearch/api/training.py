"""Train, evaluate, predict and export from Python, with the options of the commands of the same names."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from peftsearch.errors import ConfigError
from peftsearch.exporter.options import ExportOptions
from peftsearch.options import (
    Asked,
    ColumnOptions,
    InputColumns,
    MachineOptions,
    TaskOptions,
    TrainingOptions,
    TunedModelOptions,
)
from peftsearch.trainer.options import EvaluateOptions, PredictOptions, TrainedOptions, TrainOptions

if TYPE_CHECKING:
    import pandas as pd

    from peftsearch.exporter.write import Format
    from peftsearch.trainer.trained import Evaluation

PathLike = str | os.PathLike[str]


def train(
    best: PathLike | None = None,
    *,
    output: PathLike,
    design: str | None = None,
    overwrite: bool = False,
    resume: bool = False,
    method: str | None = None,
    budget: str | int | None = None,
    epochs: float | None = None,
    steps: int | None = None,
    seeds: int = 1,
    seed: int = 0,
    eval_every: int | None = None,
    early_stopping: int | None = None,
    accumulate: int | None = None,
    gradient_checkpointing: bool | None = None,
    quantize: str | None = None,
    model: PathLike | None = None,
    task: str | None = None,
    train_file: PathLike | None = None,
    validation_file: PathLike | None = None,
    test_file: PathLike | None = None,
    kind: Asked | None = None,
    metric: str | None = None,
    bad_rows: Literal["error", "drop"] | None = None,
    text_column: str | None = None,
    pair_column: str | None = None,
    label_column: str | None = None,
    learning_rate: float | None = None,
    class_weights: Literal["none", "balanced"] | None = None,
    label_smoothing: float | None = None,
    batch_size: int | None = None,
    max_length: int | Literal["auto"] | None = None,
    device: str | None = None,
    dtype: str | None = None,
    threads: int | None = None,
    trust_remote_code: bool = False,
    revision: str | None = None,
    track: str | None = None,
    push_to_hub: str | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Train the architecture that a run found, or a reference method, in full; as `peftsearch train`.

    Args:
        best: A run's folder or its `best.yaml`; None trains a reference of `method`.
        output: Folder of the result.
        design: A confirmed design of the run other than its pick.
        overwrite: Whether to replace a training in the folder.
        resume: Whether to continue an unfinished training in the folder.
        method: Reference to train instead: full, top-2, head, or one method on all blocks.
        budget: Budget of a method, or of the design on another model.
        epochs: Passes over the training examples; 3 if neither these nor steps are given.
        steps: Optimizer steps.
        seeds: Number of trainings.
        seed: Seed of the first training.
        eval_every: Steps between validations.
        early_stopping: Validations without a better score after which a training ends.
        accumulate: Parts that a batch is cut into, to save memory; None is the run's.
        gradient_checkpointing: Whether to save memory for a third more time; None is the run's.
        quantize: nf4, int8 or none; None is the run's.
        model: Hub id or folder; None is the run's.
        task: Embedded task or hub data set; None is the run's.
        train_file: Training examples; None are the run's.
        validation_file: Validation examples.
        test_file: Test examples.
        kind: Kind of task; None is the run's.
        metric: Metric; None is the run's.
        bad_rows: Whether rows that cannot be read are refused, or left out and told.
        text_column: Column of the text.
        pair_column: Column of the second text of a pair.
        label_column: Column of the label.
        learning_rate: Base learning rate; None is the run's.
        class_weights: Weights of the classes in the training loss; None is the run's.
        label_smoothing: Share of the target that is spread over all classes; None is the run's.
        batch_size: Examples per optimizer step; None is the run's.
        max_length: Maximum number of tokens of a text; None is the run's.
        device: cpu, cuda or cuda:1.
        dtype: auto, fp32 or bf16.
        threads: CPU threads; None takes the cores that are free.
        trust_remote_code: Whether code that comes with a hub model may run.
        revision: Commit, tag or branch of a hub model.
        track: Trackers to log to, such as "tensorboard".
        push_to_hub: Repository of the hub to upload the folder to, ORG/NAME.
        progress: Whether to print the progress.

    Returns:
        The content of `metrics.json`: scores of each split, seeds, and the seed whose weights were kept.

    Raises:
        PeftSearchError: The options, the run, the data, the model or the folder cannot be used.
    """
    from peftsearch.trainer.run import run_training

    options = TrainOptions(
        best=_path(best),
        output=Path(output),
        design=design,
        overwrite=overwrite,
        resume=resume,
        method=method,
        budget=None if budget is None else str(budget),
        epochs=epochs,
        steps=steps,
        seeds=seeds,
        seed=seed,
        eval_every=eval_every,
        early_stopping=early_stopping,
        quantize=quantize,
        track=track,
        push_to_hub=push_to_hub,
        model=replace(_model(model), trust_remote_code=trust_remote_code, revision=revision),
        task=TaskOptions(
            name=task,
            train=_path(train_file),
            validation=_path(validation_file),
            test=_path(test_file),
            kind=kind,
            metric=metric,
            bad_rows=bad_rows,
            text_column=text_column,
            pair_column=pair_column,
            label_column=label_column,
        ),
        training=TrainingOptions(
            learning_rate=learning_rate,
            batch_size=batch_size,
            max_length=max_length,
            class_weights=class_weights,
            label_smoothing=label_smoothing,
            accumulate=accumulate,
            gradient_checkpointing=gradient_checkpointing,
        ),
        machine=MachineOptions(device=device, dtype=dtype, threads=threads),
    )
    return run_training(options, _print if progress else _nothing)


def evaluate(
    folder: PathLike,
    *,
    task: str | None = None,
    test_file: PathLike | None = None,
    split: Literal["validation", "test"] | None = None,
    metric: str | None = None,
    text_column: str | None = None,
    pair_column: str | None = None,
    label_column: str | None = None,
    batch_size: int | None = None,
    model: PathLike | None = None,
    device: str | None = None,
    dtype: str | None = None,
    threads: int | None = None,
) -> Evaluation:
    """Score a finished training; as `peftsearch evaluate`.

    Args:
        folder: The output of `train`.
        task: Embedded task or hub data set; None is the training's.
        test_file: Labelled examples.
        split: Split of the task; None is test, where there is one.
        metric: Metric; None is the training's.
        text_column: Column of the text.
        pair_column: Column of the second text of a pair.
        label_column: Column of the label.
        batch_size: Examples per forward pass.
        model: Where the backbone is; None is where it was.
        device: cpu, cuda or cuda:1.
        dtype: auto, fp32 or bf16.
        threads: CPU threads; None takes the cores that are free.

    Returns:
        The evaluation: `score`, `metric`, `scores`, `n`.

    Raises:
        PeftSearchError: The folder, the model or the data cannot be used.
    """
    from peftsearch.trainer import evaluation

    return evaluation.evaluate(
        EvaluateOptions(
            folder=Path(folder),
            task=task,
            test=_path(test_file),
            split=split,
            metric=metric,
            columns=ColumnOptions(text_column=text_column, pair_column=pair_column, label_column=label_column),
            batch_size=batch_size,
            model=_model(model),
            machine=MachineOptions(device=device, dtype=dtype, threads=threads),
        )
    )


def predict(
    folder: PathLike,
    rows: PathLike | pd.DataFrame | Sequence[Mapping[str, Any]] | Sequence[str],
    *,
    output: PathLike | None = None,
    overwrite: bool = False,
    text_column: str | None = None,
    pair_column: str | None = None,
    prompt_column: str | None = None,
    batch_size: int | None = None,
    model: PathLike | None = None,
    device: str | None = None,
    dtype: str | None = None,
    threads: int | None = None,
) -> pd.DataFrame | None:
    """Predict a label or a text for every row; as `peftsearch predict`.

    Args:
        folder: The output of `train`.
        rows: A DataFrame, a list of dicts, a list of texts, a file, or a folder of images.
        output: File to write; needed for a file or a folder, and for these alone.
        overwrite: Whether to replace the output.
        text_column: Column of the text.
        pair_column: Column of the second text of a pair.
        prompt_column: Column of the prompt.
        batch_size: Examples per forward pass.
        model: Where the backbone is; None is where it was.
        device: cpu, cuda or cuda:1.
        dtype: auto, fp32 or bf16.
        threads: CPU threads; None takes the cores that are free.

    Returns:
        The rows with the predictions; None if they are written to a file.

    Raises:
        PeftSearchError: The folder, the model or the rows cannot be used.
    """
    import pandas as pd

    from peftsearch.trainer import prediction
    from peftsearch.trainer.trained import load_trained

    how: dict[str, Any] = {
        "folder": Path(folder),
        "columns": InputColumns(text_column=text_column, pair_column=pair_column, prompt_column=prompt_column),
        "batch_size": batch_size,
        "model": _model(model),
        "machine": MachineOptions(device=device, dtype=dtype, threads=threads),
    }
    if isinstance(rows, str | os.PathLike):
        if output is None:
            raise ConfigError(f"predict: {rows} is a file or folder; give the output file too, or the rows themselves")
        prediction.predict(PredictOptions(**how, input=Path(rows), output=Path(output), overwrite=overwrite))
        return None
    if output is not None:
        raise ConfigError("predict: output is for files; rows that are given come back as a DataFrame")
    trained = load_trained(TrainedOptions(**how))
    frame = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(_rows(rows, _text(trained, how["columns"])))
    table = prediction.table_of(frame)
    return pd.DataFrame(prediction.predicted(trained, table, how["columns"]), index=frame.index)


def export(
    what: PathLike,
    *,
    format: Format,
    output: PathLike,
    overwrite: bool = False,
    design: str | None = None,
    seed: int | None = None,
    task: str | None = None,
    partial: bool = False,
    push_to_hub: str | None = None,
    model: PathLike | None = None,
) -> Path:
    """Write a found architecture in the format of another tool; as `peftsearch export`.

    Args:
        what: A run's folder, its `best.yaml`, or a folder of `peftsearch.save`.
        format: peft, adapters, merged or peftsearch.
        output: Folder to make.
        overwrite: Whether to replace the contents of the folder.
        design: A confirmed design of the run other than its pick.
        seed: Seed of the run's confirmed training; None is the first.
        task: Task, of a run with several.
        partial: Whether a merged export may keep what does not merge beside the model.
        push_to_hub: Repository of the hub to upload the folder to, ORG/NAME.
        model: Where the backbone is; None is where it was.

    Returns:
        The folder.

    Raises:
        PeftSearchError: The source, the format or the output cannot be used; nothing is written then.
    """
    from peftsearch.exporter.write import write_export

    options = ExportOptions(
        design=design, seed=seed, task=task, partial=partial, push_to_hub=push_to_hub, model=_model(model)
    )
    write_export(Path(what), form=format, output=Path(output), overwrite=overwrite, options=options)
    return Path(output)


def _path(value: PathLike | None) -> Path | None:
    return None if value is None else Path(value)


def _model(name: PathLike | None) -> TunedModelOptions:
    return TunedModelOptions(name=None if name is None else str(name))


def _rows(rows: Sequence[Any], text: str) -> list[Mapping[str, Any]]:
    """Rows as mappings; texts alone get the column that the training read."""
    return [{text: row} if isinstance(row, str) else row for row in rows]


def _text(trained: Any, columns: InputColumns) -> str:
    known = trained.columns
    return columns.prompt_column or columns.text_column or ("text" if known is None else known.text)


def _print(line: str) -> None:
    print(line, flush=True)


def _nothing(line: str) -> None:
    """Print nothing."""
