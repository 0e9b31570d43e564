"""Run the images of a task through the model's image processor, once per study.

The pixels stay in memory in the form that the model reads: float32, all of one size, so that batches need no padding.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from peftsearch.errors import TaskError, one_line
from peftsearch.tasks.encoding.encoded import EncodedTask, collate_labels
from peftsearch.tasks.task import ImageSplit, Task

CHUNK = 64
"""Images per call of the processor."""
WIDE_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N", "F")
"""Pillow's modes with more than 8 bits per channel, which it would clip."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodedImages:
    """The pixels of one split."""

    pixels: Tensor
    """Output of the image processor, `(n, channel, height, width)` of float32."""
    labels: list[int] | list[float]
    """Class indices."""

    def __len__(self) -> int:
        """The number of images."""
        return len(self.labels)

    def length(self, index: int) -> int:
        """1, since all images have the same size."""
        return 1

    def collate(self, indices: list[int]) -> dict[str, Tensor]:
        """Put the images at `indices` into one batch.

        Returns:
            `pixel_values`, `(batch, channel, height, width)` of float32, and `labels`, `(batch,)` of int64.
        """
        return {"pixel_values": self.pixels[indices], "labels": collate_labels(self.labels, indices)}


def encode_images(task: Task, processor: Any) -> EncodedTask:
    """Run every split through an image processor.

    Raises:
        TaskError: An image is damaged, or the processor makes images of several sizes.
    """
    splits = {
        name: encode_image_split(split, processor)
        for name, split in (("train", task.train), ("validation", task.validation), ("test", task.test))
        if isinstance(split, ImageSplit)
    }
    shape = " x ".join(map(str, splits["train"].pixels.shape[1:]))
    n_images, n_bytes = sum(map(len, splits.values())), sum(split.pixels.nbytes for split in splits.values())
    return EncodedTask(
        task=task,
        train=splits["train"],
        validation=splits["validation"],
        test=splits.get("test"),
        notes=(f"{n_images:,} images of {shape} are kept in memory: {n_bytes / 1e6:,.1f} MB",),
    )


def encode_image_split(split: ImageSplit, processor: Any) -> EncodedImages:
    """Run one split through an image processor.

    Raises:
        TaskError: An image is damaged, or the processor makes images of several sizes.
    """
    pixels: Tensor | None = None
    for start in range(0, len(split), CHUNK):
        part = range(start, min(start + CHUNK, len(split)))
        made = _process([decode(split.texts[i], split.images[i]) for i in part], processor, split.texts[start])
        if pixels is None:
            pixels = torch.empty(
                len(split), *made.shape[1:]
            )  # allocated at once, since joining parts would take twice the memory
        if made.shape[1:] != pixels.shape[1:]:
            raise TaskError(f"{split.texts[start]}: {_SIZES}")
        pixels[start : part.stop] = made
    assert pixels is not None, "a split has images"
    return EncodedImages(pixels=pixels, labels=split.labels)


_SIZES = (
    "the model's image processor makes images of several sizes; give images of one size, or a preprocessor_config.json "
    "that resizes (do_resize)"
)


def decode(name: str, content: bytes) -> Any:
    """Decode an image to three channels, rotated according to its EXIF data, as `datasets` does.

    Args:
        name: Name of the image in messages.
        content: Bytes of the image file.

    Returns:
        A `PIL.Image.Image` in mode RGB.

    Raises:
        TaskError: The file is damaged, is not an image, or has more than 8 bits per channel.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about palettes with transparency, and sizes below Pillow's limit
            image = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
            mode, rgb = image.mode, image.convert("RGB")
    except UnidentifiedImageError as fault:  # its own message names a buffer instead of the file
        raise TaskError(
            f"{name}: is not an image that Pillow can read, or is damaged; save it again or leave it out"
        ) from fault
    except Exception as fault:  # decoders raise anything on damaged files: OSError, SyntaxError, struct.error
        raise TaskError(
            f"{name}: cannot be read as an image ({one_line(fault, 80)}); save it again or leave it out"
        ) from fault
    if mode in WIDE_MODES:
        raise TaskError(f"{name}: has more than 8 bits per channel (mode {mode}); save it with 8")
    return rgb


def undecodable(split: ImageSplit) -> dict[int, str]:
    """What is wrong with each image that cannot be decoded."""
    faults = {}
    for i, (name, content) in enumerate(zip(split.texts, split.images, strict=True)):
        try:
            decode(name, content)
        except TaskError as error:
            faults[i] = str(error).removeprefix(f"{name}: ").partition("; ")[0]
    return faults


def _process(images: list[Any], processor: Any, name: str) -> Tensor:
    """Process images to `(n, channel, height, width)` of float32."""
    try:
        made: Tensor = processor(images=images, return_tensors="pt")["pixel_values"].float()
    except (ValueError, RuntimeError) as fault:
        raise TaskError(f"{name}: {_SIZES} ({one_line(fault, 80)})") from fault
    return made
