"""The model of a finished training, loaded again: what evaluating and predicting have in common."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from peftsearch.backbone.device import choose_device, choose_dtype
from peftsearch.backbone.load import LoadedBackbone, decoder_start, load_backbone
from peftsearch.design.references import is_in_place
from peftsearch.engine.scoring import logits_of
from peftsearch.errors import BackboneError, CheckpointError, ConfigError
from peftsearch.injection import checkpoint
from peftsearch.injection.checkpoint import put
from peftsearch.tasks.encoding.encode import encode_any
from peftsearch.tasks.encoding.pairs import EncodedPairs, encode_pair_split
from peftsearch.tasks.reading.columns import Columns
from peftsearch.tasks.task import Split
from peftsearch.trainer.folder import read_training


@dataclass(frozen=True, kw_only=True, slots=True)
class Trained:
    """A finished training, loaded."""

    path: Path
    """Its folder."""
    settings: Mapping[str, Any]
    """What `training.yaml` holds."""
    loaded: LoadedBackbone
    """With the trained parameters in it."""
    device: torch.device
    autocast: torch.dtype | None
    batch_size: int

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the classes; empty for a regression."""
        return tuple(self.settings["task"]["labels"])

    @property
    def is_regression(self) -> bool:
        """Whether the outputs are numbers."""
        return bool(self.settings["task"]["kind"] == "regression")

    @property
    def has_images(self) -> bool:
        """Whether it was trained on images."""
        return bool(self.settings["task"].get("images"))

    @property
    def is_generation(self) -> bool:
        """Whether texts are written."""
        return bool(self.settings["task"]["kind"] == "generation")

    @property
    def columns(self) -> Columns | None:
        """The columns that it was trained on; None for generated sentences."""
        columns = self.settings["task"]["columns"]
        return None if columns is None else Columns(**columns)

    def logits(self, split: Split) -> Tensor:
        """Outputs `(n, num_labels)` on the texts or images of a split."""
        encoded = encode_any(split, self.loaded.tokenizer, self.settings["training"]["max_length"])
        return logits_of(
            self.loaded.model, encoded, batch_size=self.batch_size, device=self.device, autocast=self.autocast
        )

    def encoded(self, split: Split) -> EncodedPairs:
        """Prompts and completions of a split, cut as those of the training."""
        return encode_pair_split(
            split,
            self.loaded.tokenizer,
            self.settings["training"]["max_length"],
            decoder_start(self.loaded),
            self.settings["task"]["max_new"],
        )

    @property
    def evaluation_options(self) -> dict[str, Any]:
        """Batch size, device and precision of forward passes without gradients."""
        return {"batch_size": self.batch_size, "device": self.device, "autocast": self.autocast}

    def check_columns(self, arguments: argparse.Namespace) -> None:
        """Refuse names of columns that this kind of task has not.

        Raises:
            ConfigError: One is given.
        """
        of_texts, of_pairs = ("text_column", "pair_column", "label_column"), ("prompt_column", "completion_column")
        for name in of_texts if self.is_generation else of_pairs:
            if getattr(arguments, name, None) is not None:
                kind = self.settings["task"]["kind"]
                others = " or ".join(f"--{o.replace('_', '-')}" for o in (of_pairs if self.is_generation else of_texts))
                raise ConfigError(
                    f"--{name.replace('_', '-')}: {self.path} was trained on a {kind}; its columns are named with "
                    f"{others}"
                )


def load_trained(path: Path, arguments: argparse.Namespace) -> Trained:
    """Load a finished training.

    Args:
        path: The folder of `peftsearch train --output`.
        arguments: `model`, `trust_remote_code`, `anatomy`, `device`, `dtype` and `batch_size`, as the command line has
            them; a model says where the backbone is now.

    Raises:
        PeftSearchError: The folder holds no finished training, is damaged, or does not belong to the model.
    """
    settings = read_training(path)
    device = choose_device(arguments.device)
    autocast = choose_dtype(device, arguments.dtype)
    if arguments.batch_size is not None and arguments.batch_size < 1:
        raise ConfigError(f"--batch-size must be at least 1, got {arguments.batch_size}")
    try:
        is_whole = is_in_place(settings["method"])  # the folder holds the whole model
        n_labels, kind = max(1, len(settings["task"]["labels"])), settings["task"]["kind"]
        batch_size = arguments.batch_size or 2 * settings["training"]["batch_size"]
        quantize = settings["model"].get("quantize")
    except (KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: training.yaml is damaged: {type(error).__name__} {error}") from error
    options = {"device": device, "trust_remote_code": arguments.trust_remote_code, "anatomy": arguments.anatomy}
    problem = kind if kind in ("regression", "generation") else None
    if is_whole:
        loaded = load_backbone(path, num_labels=n_labels, problem_type=problem, **options)
    else:
        saved = checkpoint.read_checkpoint(path)
        values = checkpoint.read_tensors(saved)
        options |= {"quantize": quantize, "compute_dtype": autocast}
        loaded = _backbone(saved, arguments.model, n_labels, problem, options)
        put(loaded.model, loaded.backbone, saved, values)
    return Trained(path=path, settings=settings, loaded=loaded, device=device, autocast=autocast, batch_size=batch_size)


def _backbone(
    saved: checkpoint.Checkpoint, model: str | None, num_labels: int, problem: str | None, options: dict[str, Any]
) -> LoadedBackbone:
    """The backbone that a checkpoint was trained on, from where the user says that it is now.

    Raises:
        BackboneError: It cannot be found.
        CheckpointError: Its weights are other ones.
    """
    if model is None:
        try:
            return checkpoint.load_base(saved, **options)
        except BackboneError as error:
            raise BackboneError(f"{error} ({saved.where} was trained on it; --model says where it is now)") from error
    loaded = load_backbone(model, num_labels=num_labels, problem_type=problem, **options)
    there, here = str(saved.model["revision"]), loaded.backbone.revision
    if there.startswith("sha256:") and here.startswith("sha256:") and there != here:
        raise CheckpointError(f"{saved.where}: was trained on weights {there}, and {model} has {here}; give those")
    return loaded
