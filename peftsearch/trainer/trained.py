"""The model of a finished training, loaded again: what evaluating and predicting have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from peftsearch.backbone.device import choose_device, choose_dtype, settle_threads
from peftsearch.backbone.load import LoadedBackbone, decoder_start, max_positions
from peftsearch.design.references import is_in_place
from peftsearch.engine.inputs import load_model, reads_of
from peftsearch.engine.scoring import logits_of
from peftsearch.errors import BackboneError, CheckpointError, ConfigError, TaskError
from peftsearch.injection import checkpoint
from peftsearch.injection.checkpoint import put
from peftsearch.options import DecodingOptions, InputColumns, ModelOptions, changed_options
from peftsearch.tasks.encoding.chats import encode_chat_split
from peftsearch.tasks.encoding.encode import encode_any
from peftsearch.tasks.encoding.encoded import EncodedSplit
from peftsearch.tasks.encoding.pairs import EncodedPairs, encode_pair_split
from peftsearch.tasks.encoding.readable import check_examples
from peftsearch.tasks.kinds import Kind, n_outputs
from peftsearch.tasks.reading.columns import Columns
from peftsearch.tasks.task import ChatSplit, Split, Task
from peftsearch.trainer.folder import read_training
from peftsearch.trainer.options import TrainedOptions
from peftsearch.trainer.record import Data, TrainingRecord


@dataclass(frozen=True, kw_only=True, slots=True)
class Trained:
    """A finished training, loaded."""

    path: Path
    """Its folder."""
    record: TrainingRecord
    """What `training.yaml` holds."""
    loaded: LoadedBackbone
    """With the trained parameters in it."""
    device: torch.device
    autocast: torch.dtype | None
    batch_size: int
    decoding: DecodingOptions
    """How texts are written, of a generation."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the classes; empty for a regression."""
        return self.record.task.labels

    @property
    def kind(self) -> Kind:
        """Kind of its task."""
        return self.record.task.kind

    @property
    def is_regression(self) -> bool:
        """Whether the outputs are numbers."""
        return self.record.task.kind == "regression"

    @property
    def has_images(self) -> bool:
        """Whether it was trained on images."""
        return self.record.task.images

    @property
    def is_generation(self) -> bool:
        """Whether texts are written."""
        return self.record.task.kind == "generation"

    @property
    def columns(self) -> Columns | None:
        """The columns that it was trained on; None for generated sentences."""
        return self.record.task.columns

    def outputs(self, split: Split) -> tuple[Tensor, EncodedSplit]:
        """Outputs `(n, num_labels)` on the texts or images of a split, of tags for every word; and what was read."""
        encoded = encode_any(split, self.loaded.tokenizer, self.record.training.max_length)
        if not self.loaded.reads_images:
            check_examples(encoded, split, "input", reads_of(self.loaded, pairs=split.pairs is not None))
        return logits_of(self.loaded.model, encoded, **self.evaluation_options), encoded

    @property
    def target(self) -> tuple[float, float] | None:
        """Mean and scale by which a regression's targets are standardised; None for other kinds."""
        target = self.record.task.target
        return None if target is None else (target.mean, target.scale)

    def targets_of(self, values: Sequence[float]) -> list[float]:
        """The targets of a regression in their own unit, from the standardised ones."""
        assert self.target is not None, "a regression has one"
        mean, scale = self.target
        return [mean + scale * value for value in values]

    def encoded(self, split: Split) -> EncodedPairs:
        """Prompts and completions of a split, cut as those of the training."""
        own = self.record.task.max_new
        assert own is not None, "a generation has one"
        room = self.decoding.max_new_tokens or own
        length = self.record.training.max_length + max(0, room - own)  # prompts keep their room
        limit = max_positions(self.loaded)
        if limit is not None and room >= limit:
            raise ConfigError(f"--max-new-tokens {room}: the model has positions for {limit} tokens; give fewer")
        length = length if limit is None else min(length, limit)
        if isinstance(split, ChatSplit):
            return encode_chat_split(split, self.loaded.tokenizer, length, room)
        return encode_pair_split(
            split,
            self.loaded.tokenizer,
            length,
            decoder_start(self.loaded),
            room,
        )

    @property
    def evaluation_options(self) -> dict[str, Any]:
        """Batch size, device and precision of forward passes without gradients."""
        return {"batch_size": self.batch_size, "device": self.device, "autocast": self.autocast}

    @property
    def data(self) -> Data:
        """Where the data of the training are."""
        return self.record.task.data

    def check_columns(self, columns: InputColumns) -> None:
        """Refuse names of columns that this kind of task does not have.

        Raises:
            ConfigError: One is given.
        """
        of_texts, of_pairs = ("text_column", "pair_column", "label_column"), ("prompt_column", "completion_column")
        for name in of_texts if self.is_generation else of_pairs:
            if getattr(columns, name, None) is not None:
                kind = self.record.task.kind
                others = " or ".join(f"--{o.replace('_', '-')}" for o in (of_pairs if self.is_generation else of_texts))
                raise ConfigError(
                    f"--{name.replace('_', '-')}: {self.path} was trained on a {kind}; its columns are named with "
                    f"{others}"
                )


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """Scores of a finished training on a split."""

    metric: str
    """The metric that was asked for, or the training's."""
    scores: Mapping[str, float]
    """By metric; a classification or regression has one."""
    data: str
    """The data, in words."""
    n: int
    """Examples; for generation references."""
    n_prompts: int | None = None
    """Prompts, for generation."""

    @property
    def score(self) -> float:
        """Score by the metric."""
        return self.scores[self.metric]


def choose_split(task: Task, asked: str | None) -> tuple[str, Split]:
    """Choose the split to evaluate on.

    Args:
        task: A task.
        asked: `test` or `validation`; None takes test if there is one.

    Returns:
        The data in words, and the split.

    Raises:
        TaskError: The task has no test split.
    """
    name = asked or ("test" if task.test is not None else "validation")
    split = task.test if name == "test" else task.validation
    if split is None:
        raise TaskError(f"task {task.name!r}: has no test split; give --split validation, or --test FILE")
    return f"{task.name}, {name}", split


def load_trained(options: TrainedOptions) -> Trained:
    """Load a finished training.

    Args:
        options: Its folder, the machine, and where the backbone is now.

    Raises:
        PeftSearchError: The folder holds no finished training, is damaged, or does not belong to the model.
    """
    path = options.folder
    record = read_training(path)
    device = choose_device(options.machine.device)
    settle_threads(options.machine.threads, device)
    autocast = choose_dtype(device, options.machine.dtype)
    if options.batch_size is not None and options.batch_size < 1:
        raise ConfigError(f"--batch-size must be at least 1, got {options.batch_size}")
    _check_decoding(options.decoding, record.task.kind)
    kind = record.task.kind
    n_labels = n_outputs(kind, max(1, len(record.task.labels)))
    batch_size = options.batch_size or 2 * record.training.batch_size
    quantize = record.model.quantize
    if is_in_place(record.method):  # the folder holds the whole model
        loaded = load_model(replace(options.model, name=str(path), revision=None), kind, n_labels, device=device)
    else:
        saved = checkpoint.read_checkpoint(path)
        values = checkpoint.read_tensors(saved)
        loaded = _backbone(saved, options.model, kind, n_labels, device, quantize, autocast)
        put(loaded.model, loaded.backbone, saved, values)
    return Trained(
        path=path,
        record=record,
        loaded=loaded,
        device=device,
        autocast=autocast,
        batch_size=batch_size,
        decoding=options.decoding,
    )


def _check_decoding(decoding: DecodingOptions, kind: Kind) -> None:
    """Check the ranges of the options of decoding.

    Raises:
        ConfigError: One is out of its range, or the task is not a generation.
    """
    changed = next(iter(changed_options(decoding)), None)
    if changed is not None and kind != "generation":
        raise ConfigError(f"{changed}: is for generation, and the training is a {kind}; leave it out")
    for flag, value, least in (
        ("--max-new-tokens", decoding.max_new_tokens, 1),
        ("--beams", decoding.beams, 1),
        ("--generation-seed", decoding.generation_seed, 0),
    ):
        if value is not None and value < least:
            raise ConfigError(f"{flag} must be at least {least}, got {value}")
    if decoding.temperature is not None and not 0 < decoding.temperature < inf:
        raise ConfigError(
            f"--temperature must be above 0, got {decoding.temperature:g}; leave it out to write greedily"
        )
    if decoding.stop == "":
        raise ConfigError("--stop: is empty; give a text such as '\\n', or leave it out")


def _backbone(
    saved: checkpoint.Checkpoint,
    model: ModelOptions,
    kind: Kind,
    num_labels: int,
    device: torch.device,
    quantize: str | None,
    autocast: torch.dtype | None,
) -> LoadedBackbone:
    """The backbone that a checkpoint was trained on, from where the user says that it is now.

    Raises:
        BackboneError: It cannot be found.
        CheckpointError: Its weights are other ones.
    """
    if model.name is None:
        try:
            return checkpoint.load_base(
                saved,
                device=device,
                trust_remote_code=model.trust_remote_code,
                anatomy=model.anatomy,
                quantize=quantize,
                compute_dtype=autocast,
                device_map=model.device_map,
            )
        except BackboneError as error:
            raise BackboneError(f"{error} ({saved.where} was trained on it; --model says where it is now)") from error
    loaded = load_model(model, kind, num_labels, device=device, quantize=quantize, compute_dtype=autocast)
    there, here = saved.model.revision, loaded.backbone.revision
    if there.startswith("sha256:") and here.startswith("sha256:") and there != here:
        raise CheckpointError(f"{saved.where}: was trained on weights {there}, and {model.name} has {here}; give those")
    return loaded
