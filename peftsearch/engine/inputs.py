"""Load the model that the options name, for searches and for training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from peftsearch.engine.settings import TrainingSettings
from peftsearch.errors import ConfigError, TaskError
from peftsearch.options import AUTO, ModelOptions, TunedModelOptions

if TYPE_CHECKING:
    from peftsearch.backbone.load import LoadedBackbone
    from peftsearch.tasks.encoding.encoded import EncodedTask
    from peftsearch.tasks.encoding.readable import Reads
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
        BackboneError: The model cannot be found, loaded, read, or packed, or the subspace is of another model.
        ConfigError: The user's description of the blocks is malformed.
    """
    from peftsearch.backbone.load import load_backbone
    from peftsearch.backbone.subspace import with_subspace

    loaded = load_backbone(
        options.name,
        num_labels=num_labels,
        problem_type=None if kind == "classification" else kind,
        device=device,
        trust_remote_code=options.trust_remote_code,
        revision=options.revision,
        anatomy=options.anatomy,
        quantize=quantize,
        compute_dtype=compute_dtype,
        device_map=options.device_map,
    )
    if not isinstance(options, TunedModelOptions) or options.subspace is None:
        return loaded
    return replace(loaded, backbone=with_subspace(loaded.backbone, options.subspace))


def reads_of(loaded: LoadedBackbone, *, pairs: bool) -> Reads:
    """What a model can read of texts.

    Args:
        loaded: The model.
        pairs: Whether it reads pairs of texts.
    """
    from peftsearch.tasks.encoding.encode import encode_split
    from peftsearch.tasks.encoding.readable import EndToken, Reads
    from peftsearch.tasks.task import Split

    tokenizer, config = loaded.tokenizer, loaded.model.config
    end_id, end = getattr(config, "eos_token_id", None), None
    if getattr(config, "is_encoder_decoder", False) and loaded.backbone.head and isinstance(end_id, int):
        shape = Split(texts=["a"], pairs=["a"] if pairs else None, labels=[0])
        n = encode_split(shape, tokenizer, max_length=1_000).input_ids[0].count(end_id)
        end = EndToken(id=end_id, text=str(tokenizer.convert_ids_to_tokens(end_id)), n=n)
    unknown = tokenizer.unk_token_id
    return Reads(
        n_tokens=int(loaded.model.get_input_embeddings().num_embeddings),
        end=end,
        special=frozenset({*tokenizer.all_special_ids, *([] if unknown is None else [unknown])}),
        unknown=unknown,
    )


def encode_task(loaded: LoadedBackbone, task: Task, max_length: int, bad_rows: str | None) -> EncodedTask:
    """Encode a task, and hold every example against what the model can read.

    Args:
        loaded: The model.
        task: The task.
        max_length: Most tokens of a text.
        bad_rows: `drop` leaves out examples that the model cannot read; else they are refused.

    Returns:
        The encoded task; its `task` is without the examples that are left out.

    Raises:
        TaskError: The data cannot be encoded, or the model cannot read an example.
    """
    from peftsearch.backbone.load import decoder_start
    from peftsearch.tasks.encoding.encode import encode
    from peftsearch.tasks.encoding.readable import sound_images, sound_task

    start = decoder_start(loaded)
    try:
        encoded = encode(task, loaded.tokenizer, max_length, start)
    except TaskError:
        sound, told = sound_images(task, bad_rows)  # refuses all damaged images together
        if sound is task:
            raise
        encoded = encode(sound, loaded.tokenizer, max_length, start)
        return replace(encoded, notes=(*told, *encoded.notes))
    if loaded.reads_images:
        return encoded
    splits = {"train": encoded.train, "validation": encoded.validation}
    splits |= {} if encoded.test is None else {"test": encoded.test}
    pairs = task.kind != "generation" and task.train.pairs is not None
    sound, notes = sound_task(task, splits, reads_of(loaded, pairs=pairs), bad_rows)
    if sound is not task:
        encoded = encode(sound, loaded.tokenizer, max_length, start)
    return replace(encoded, notes=(*notes, *encoded.notes))


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


def memory_notes(
    loaded: LoadedBackbone, training: TrainingSettings, n_trained: int, kind: str | None, device: Any, autocast: Any
) -> tuple[str, ...]:
    """A note where a training step may not fit into the memory that an accelerator has left, with what would help.

    Args:
        loaded: The model, on its device.
        training: Batch, length, parts and checkpointing.
        n_trained: Most parameters that are trained, the head's included.
        kind: Kind of the task.
        device: Where the model is.
        autocast: Reduced precision of the forward pass, or None.
    """
    import torch

    if device.type != "cuda":
        return ()
    from peftsearch.backbone.outline import weights_of
    from peftsearch.backbone.private_transformers import attention_of
    from peftsearch.backbone.quantised import quantised_maps
    from peftsearch.design.memory import Step
    from peftsearch.design.preflight import Preflight

    words = getattr(loaded.model, "get_input_embeddings", lambda: None)()
    flight = Preflight(
        weights=weights_of(loaded.model),
        blocks=loaded.backbone.blocks,
        step=Step(
            batch=training.batch_size,
            seq=training.max_length,
            float_bytes=4 if autocast is None else 2,
            attention="eager" if attention_of(loaded.model.config) == "eager" else "fused",
        ),
        n_trained=n_trained,
        n_tokens=int(getattr(words, "num_embeddings", 0)) if kind == "generation" else 0,
        accumulate=training.accumulate,
        checkpointing=training.gradient_checkpointing,
        packed=any(True for _ in quantised_maps(loaded.model)),
    )
    advice = flight.advice(torch.cuda.mem_get_info(device)[0])
    return () if advice is None else (f"{device}: {advice}",)
