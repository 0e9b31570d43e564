"""Train the design of a run again under transformers' Trainer, as the run trained it."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import EvalPrediction, TrainingArguments

from peftsearch.api.trainer import Trainer
from peftsearch.design.architecture import Architecture
from peftsearch.engine.trainable import begin
from peftsearch.errors import ConfigError
from peftsearch.injection.inject import inject
from peftsearch.searcher.options import read_options
from peftsearch.tasks.encoding.encoded import EncodedSplit
from peftsearch.tasks.kinds import QUESTIONS, TITLES
from peftsearch.tasks.own_metric import short_name
from peftsearch.trainer.options import TrainOptions
from peftsearch.trainer.plan import Plan, prepare
from peftsearch.trainer.source import read_run

Item = tuple[EncodedSplit, int]


class Examples(Dataset[Item]):
    """A split for a DataLoader; `collate` makes the batches.

    Args:
        split: The encoded examples.
    """

    def __init__(self, split: EncodedSplit) -> None:
        self._split = split

    def __len__(self) -> int:
        """Number of examples."""
        return len(self._split)

    def __getitem__(self, index: int) -> Item:
        """The split and the index of an example."""
        return self._split, index


def collate(items: list[Item]) -> dict[str, Tensor]:
    """Pad examples of one split into a batch."""
    return items[0][0].collate([index for _, index in items])


def trainer_of(
    path: Path, args: TrainingArguments | None, *, design: str | None = None, seed: int = 0, **kwargs: Any
) -> Trainer:
    """A Trainer for a design of a run, with the run's model, data, head, rates and loss.

    Args:
        path: The run's folder.
        args: Arguments of the training; None takes the run's steps, batch size and precision.
        design: Name of a confirmed design other than the pick.
        seed: Seed of the initial values.
        **kwargs: Further arguments for `transformers.Trainer`.

    Raises:
        PeftSearchError: The run's model or data cannot be loaded again.
    """
    run = read_run(path, design)
    if run.task.kind in ("generation", QUESTIONS):
        what = TITLES.get(run.task.kind, run.task.kind)
        raise ConfigError(f"{path}: is a run of {what}; its design is trained by `peftsearch train`")
    model = replace(read_options(path).model, name=None, revision=None)  # code and anatomy that the user allowed
    steps = int(run.training["steps"])
    options = TrainOptions(best=path, output=path, design=design, seed=seed, steps=steps, model=model)
    plan = prepare(options, run)
    rate = plan.training.learning_rate
    if args is None:
        args = TrainingArguments(
            output_dir=tempfile.mkdtemp(prefix="peftsearch-"),
            max_steps=plan.n_steps,
            per_device_train_batch_size=plan.training.batch_size,
            per_device_eval_batch_size=4 * plan.training.batch_size,
            warmup_steps=plan.training.warmup_share,
            max_grad_norm=plan.training.max_grad_norm,
            bf16=plan.autocast is torch.bfloat16,
            use_cpu=plan.processes.device.type == "cpu",
            save_strategy="no",
            seed=seed,
        )
    args.learning_rate = rate
    args.remove_unused_columns = False  # the collator makes the columns
    _put_in(plan, seed)
    # Examples of the caller's own are batched by transformers' collator, unless they bring one.
    own = "train_dataset" in kwargs or "eval_dataset" in kwargs
    collator = kwargs.pop("data_collator", None if own else collate)
    if own and collator is None:
        kwargs.setdefault("processing_class", plan.loaded.tokenizer)
    return Trainer(
        plan.loaded.model,
        args,
        head_learning_rate=plan.training.head_learning_rate,
        dropout=plan.training.dropout,
        train_dataset=kwargs.pop("train_dataset", Examples(plan.data.train)),
        eval_dataset=kwargs.pop("eval_dataset", Examples(plan.data.validation)),
        data_collator=collator,
        preprocess_logits_for_metrics=kwargs.pop("preprocess_logits_for_metrics", _logits_alone),
        compute_metrics=kwargs.pop("compute_metrics", _metrics_of(plan)),
        compute_loss_func=kwargs.pop("compute_loss_func", _loss_of(plan)),
        **kwargs,
    )


def _put_in(plan: Plan, seed: int) -> None:
    """Put the architecture into the model, as a seed begins with it."""
    architecture = plan.architecture
    assert isinstance(architecture, Architecture), "a design of a run is no reference"
    done = inject(plan.loaded.model, architecture, plan.loaded.backbone, seed)
    done.injected.task = {"name": plan.task.name, "kind": plan.task.kind, "labels": list(plan.task.labels)}
    if plan.objective.is_regression:  # the outputs are standardised
        done.injected.task |= {"mean": plan.objective.mean, "scale": plan.objective.scale}
    begin(plan.start(seed))


def _logits_alone(logits: Any, labels: Tensor) -> Tensor:
    """The logits of a model that gives more, such as the encoder's states."""
    return logits[0] if isinstance(logits, tuple) else logits  # type: ignore[no-any-return]  # the first is one


def _metrics_of(plan: Plan) -> Any:
    def metrics(given: EvalPrediction) -> dict[str, float]:
        logits = torch.as_tensor(given.predictions).float()
        return {short_name(plan.task.metric): plan.objective.score(logits, given.label_ids.tolist())}

    return metrics


def _loss_of(plan: Plan) -> Any:
    def loss(outputs: Any, labels: Tensor, num_items_in_batch: Any = None) -> Tensor:
        mean = plan.objective.loss(outputs["logits"].float(), labels)
        return mean if num_items_in_batch is None else mean * len(labels) / num_items_in_batch

    return loss
