"""Load the model that the options name, for searches and for training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from peftsearch.engine.settings import TrainingSettings
from peftsearch.errors import ConfigError
from peftsearch.options import AUTO, ModelOptions

if TYPE_CHECKING:
    from peftsearch.backbone.load import LoadedBackbone
    from peftsearch.tasks.task import Task


def load_model(
    options: ModelOptions,
    kind: str | None,
    num_labels: int,
    *,
    device: Any = "cpu",
    quantize: str | None = None,
    compute_dtype: Any = None,
) -> LoadedBackbone:
    """Load the model that the options name, with the head of a kind of task.

    Args:
        options: The model.
        kind: Kind of the task, or a `problem_type` of transformers; None is a classification.
        num_labels: Outputs of the head.
        device: Device for the model.
        quantize: `nf4` or `int8` packs the frozen weights.
        compute_dtype: Precision of the frozen weights; see `load_backbone`.

    Raises:
        BackboneError: The model cannot be found, loaded, read, or packed.
        ConfigError: The user's description of the blocks is malformed.
    """
    from peftsearch.backbone.load import load_backbone

    return load_backbone(
        options.name,
        num_labels=num_labels,
        problem_type=None if kind == "classification" else kind,
        device=device,
        trust_remote_code=options.trust_remote_code,
        revision=options.revision,
        anatomy=options.anatomy,
        quantize=quantize,
        compute_dtype=compute_dtype,
    )


def settle_length(
    training: TrainingSettings,
    max_length: int | str | None,
    loaded: LoadedBackbone,
    tasks: Sequence[Task],
) -> tuple[TrainingSettings, tuple[str, ...]]:
    """Choose the length that texts are cut at, within the positions that the model has.

    Args:
        training: Settings with a length.
        max_length: The user's length; `auto` follows from the data; None keeps the length of the settings.
        loaded: The model.
        tasks: The tasks, for `auto`.

    Returns:
        The settings, and notes for the user.

    Raises:
        ConfigError: The user's length exceeds the positions of the model, or the model reads images.
        TaskError: The chats cannot be rendered.
    """
    from peftsearch.backbone.load import max_positions
    from peftsearch.tasks.encoding.lengths import QUANTILE, length_for

    if loaded.reads_images:
        if max_length not in (None, AUTO):
            raise ConfigError(
                f"--max-length {max_length}: {loaded.backbone.name} reads images, not texts; leave it out"
            )
        return training, ()
    limit = max_positions(loaded)
    if max_length == AUTO:
        length = length_for(tasks, loaded.tokenizer, limit)
        return replace(training, max_length=length), (
            f"texts are cut at {length} tokens (--max-length auto: {QUANTILE:.0%} of train fit, within the model's "
            "positions)",
        )
    if limit is None or training.max_length <= limit:
        return training, ()
    if max_length is not None:
        raise ConfigError(
            f"--max-length {max_length}: {loaded.backbone.name} has positions for {limit} tokens; give at most that"
        )
    return replace(training, max_length=limit), (f"texts are cut at {limit} tokens, the positions of the model",)
