"""Encode a task once per study: texts by the tokenizer, images by the image processor.

Texts become lists of token ids, without padding.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from peftsearch.errors import TaskError
from peftsearch.tasks.encoding.chats import encode_chats
from peftsearch.tasks.encoding.encoded import (
    CHUNK,
    EncodedSplit,
    EncodedTask,
    EncodedTexts,
    encode_splits,
    pad_token,
    separates_pairs,
)
from peftsearch.tasks.encoding.images import encode_image_split, encode_images
from peftsearch.tasks.encoding.pairs import encode_pairs
from peftsearch.tasks.encoding.spans import encode_spans
from peftsearch.tasks.encoding.tags import encode_tags
from peftsearch.tasks.task import AnswerSplit, ChatSplit, ImageSplit, Split, TagSplit, Task, TokenSplit


def encode(task: Task, tokenizer: Any, max_length: int = 128, start_id: int | None = None) -> EncodedTask:
    """Tokenise every split, or run it through an image processor.

    Args:
        task: The task to encode.
        tokenizer: A transformers tokenizer, or an image processor for a task on images.
        max_length: Most tokens of a text, special ones included; longer texts are cut.
        start_id: Start token of the decoder of a seq2seq model, for generation; None for other models.

    Raises:
        TaskError: The tokenizer has no token to pad with, `max_length` is too small, an image cannot be read, or the
            task is on images and the model on texts, or the reverse.
    """
    if require_inputs(f"task {task.name!r}", task.train, tokenizer):
        return encode_images(task, tokenizer)
    if isinstance(task.train, ChatSplit):
        return encode_chats(task, tokenizer, max_length, start_id)
    if task.kind == "generation":
        return encode_pairs(task, tokenizer, max_length, start_id)
    if isinstance(task.train, TagSplit):
        return encode_splits(
            task, partial(encode_tags, tokenizer=tokenizer, max_length=max_length), "texts", max_length
        )
    if isinstance(task.train, AnswerSplit):
        own = partial(encode_spans, tokenizer=tokenizer, max_length=max_length)
        return encode_splits(task, own, "contexts", max_length)
    least = tokenizer.num_special_tokens_to_add(pair=task.train.pairs is not None) + 1
    if max_length < least:
        raise TaskError(f"task {task.name!r}: max_length is {max_length}; this tokenizer needs at least {least}")
    whole = partial(encode_split, tokenizer=tokenizer, max_length=max_length)
    return encode_splits(task, whole, "texts", max_length)


def require_inputs(where: str, split: Split, tokenizer: Any) -> bool:
    """Whether a split holds images; refuse a split that the model cannot read.

    Args:
        where: Name of the split in the message.
        split: The split.
        tokenizer: The model's tokenizer or image processor, see `LoadedBackbone`.

    Raises:
        TaskError: The split holds images and the model reads texts, or the reverse.
    """
    has_images, reads_images = isinstance(split, ImageSplit), "pixel_values" in tokenizer.model_input_names
    if has_images != reads_images:
        words = ("texts", "images")
        more = "; a folder of images goes with --kind image" if reads_images else ""
        raise TaskError(
            f"{where}: has {words[has_images]}, and the model reads {words[reads_images]}; give another model with "
            f"--model, or other data{more}"
        )
    return has_images


def encode_any(split: Split, tokenizer: Any, max_length: int) -> EncodedSplit:
    """Tokenise one split of texts, or run one of images through an image processor."""
    if isinstance(split, TagSplit):
        return encode_tags(split, tokenizer, max_length)
    if isinstance(split, AnswerSplit):
        return encode_spans(split, tokenizer, max_length)
    if isinstance(split, ImageSplit):
        return encode_image_split(split, tokenizer)
    return encode_split(split, tokenizer, max_length)


def encode_split(split: Split, tokenizer: Any, max_length: int) -> EncodedTexts:
    """Tokenise one split; a pair that is too long is cut at the end of its longer text."""
    pad_id = pad_token(tokenizer)
    if isinstance(split, TokenSplit):
        return _tokens(split, pad_id, max_length)
    ids: list[list[int]] = []
    segments: list[list[int]] = []
    n_truncated = 0
    for start in range(0, len(split), CHUNK):
        texts = split.texts[start : start + CHUNK]
        pairs = None if split.pairs is None else split.pairs[start : start + CHUNK]
        if pairs is not None and not separates_pairs(tokenizer):
            texts, pairs = [f"{text}\n{pair}" for text, pair in zip(texts, pairs, strict=True)], None
        whole = tokenizer(texts, pairs, truncation=False, padding=False, verbose=False)
        over = [i for i, row in enumerate(whole["input_ids"]) if len(row) > max_length]
        n_truncated += len(over)
        made = tokenizer(texts, pairs, truncation=True, max_length=max_length) if over else whole
        ids.extend(made["input_ids"])
        segments.extend(made.get("token_type_ids") or [])
    return EncodedTexts(
        input_ids=ids,
        token_type_ids=segments or None,
        labels=split.answers(),
        pad_id=pad_id,
        n_truncated=n_truncated,
    )


def _tokens(split: TokenSplit, pad_id: int, max_length: int) -> EncodedTexts:
    """Examples that are tokenised already, cut at their end."""
    segments = split.token_type_ids
    return EncodedTexts(
        input_ids=[ids[:max_length] for ids in split.input_ids],
        token_type_ids=None if segments is None else [kinds[:max_length] for kinds in segments],
        labels=split.labels,
        pad_id=pad_id,
        n_truncated=sum(len(ids) > max_length for ids in split.input_ids),
    )
