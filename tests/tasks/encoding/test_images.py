"""What an image becomes: the pixels by a formula of our own, and images that cannot be read."""

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, ViTImageProcessorPil

from peftsearch.backbone.load import load_backbone
from peftsearch.errors import BackboneError, TaskError
from peftsearch.tasks.encoding.batches import batches, eval_batches
from peftsearch.tasks.encoding.encode import encode
from peftsearch.tasks.encoding.images import decode, encode_image_split
from peftsearch.tasks.task import ImageSplit
from tests.image_files import save_vit
from tests.tasks import resolve_task


def split_of(*images, suffix="png", **save):
    files = []
    for image in images:
        file = io.BytesIO()
        image.save(file, suffix, **save)
        files.append(file.getvalue())
    names = [f"{i}.{suffix}" for i in range(len(files))]
    return ImageSplit(texts=names, pairs=None, labels=[0] * len(files), images=files)


@pytest.fixture(scope="session")
def task(gallery):
    return resolve_task(train=gallery / "train", validation=gallery / "validation", kind="image")


@pytest.fixture(scope="session")
def processor(gallery):
    return AutoImageProcessor.from_pretrained(gallery / "model", backend="pil")


def test_pixels_are_scaled_and_normalised_as_the_config_says(processor):
    """ViT's: bytes over 255, less 0.5, over 0.5; nothing to resize here."""
    values = np.arange(16 * 16 * 3, dtype=np.uint8).reshape(16, 16, 3)
    made = encode_image_split(split_of(Image.fromarray(values)), processor).pixels
    expected = torch.tensor(values / 255.0).permute(2, 0, 1).float() * 2 - 1
    assert made.dtype == torch.float32
    torch.testing.assert_close(made[0], expected)


def test_more_images_than_a_chunk_keep_their_order(processor):
    images = [Image.new("RGB", (4, 4), (i, 0, 255 - i)) for i in range(150)]
    reds = encode_image_split(split_of(*images), processor).pixels[:, 0, 0, 0]
    torch.testing.assert_close(reds, torch.arange(150) / 255 * 2 - 1)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "1", "CMYK"])
def test_every_mode_has_three_channels(mode):
    suffix = "jpeg" if mode == "CMYK" else "png"
    split = split_of(Image.new("RGB", (5, 5), (255, 255, 255)).convert(mode), suffix=suffix)
    image = decode("x", split.images[0])
    assert image.mode == "RGB"
    assert image.getpixel((2, 2)) == (255, 255, 255)


def test_the_camera_says_which_side_is_up():
    image = Image.new("RGB", (4, 6))
    exif = image.getexif()
    exif[0x0112] = 6  # turned by a quarter
    assert decode("x", split_of(image, suffix="jpeg", exif=exif).images[0]).size == (6, 4)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "is not an image that Pillow can read"),
        (b"hello", "is not an image"),
        (None, "cannot be read as an image"),
    ],
)
def test_damaged_images_are_told_by_their_name(processor, content, told):
    whole = split_of(Image.new("RGB", (64, 64), (1, 2, 3)))
    damaged = whole.images[0][:60] if content is None else content
    with pytest.raises(TaskError, match=rf"0\.png: {told}"):
        encode_image_split(replace(whole, images=[damaged]), processor)


def test_sixteen_bits_are_refused_not_clipped(processor):
    image = Image.fromarray(np.full((4, 4), 40_000, dtype=np.uint16))
    with pytest.raises(TaskError, match="more than 8 bits per channel"):
        encode_image_split(split_of(image), processor)


def test_a_processor_that_does_not_resize(processor):
    loose = ViTImageProcessorPil(do_resize=False)
    sizes = split_of(Image.new("RGB", (4, 4)), Image.new("RGB", (5, 4)))
    with pytest.raises(TaskError, match="images of several sizes"):
        encode_image_split(sizes, loose)
    many = split_of(*[Image.new("RGB", (4, 4))] * 64, Image.new("RGB", (5, 4)))
    with pytest.raises(TaskError, match=r"64\.png: .*images of several sizes"):
        encode_image_split(many, loose)


def test_batches_hold_every_image_once(task, processor):
    data = encode(task, processor)
    assert any("42 images of 3 x 16 x 16 are kept in memory: 0.1 MB" in note for note in data.notes)
    seen = [row for batch in batches(data.train, 5, seed=3, steps=5) for row in batch["pixel_values"]]
    assert len(seen) == 24
    assert len({row.sum().item() for row in seen}) == 24
    indices = [i for chosen, batch in eval_batches(data.validation, 4) for i in chosen]
    assert sorted(indices) == list(range(18))


def test_texts_and_images_are_not_taken_for_each_other(task, processor, place):
    _, model, files = place
    loaded = load_backbone(str(model), num_labels=2)
    with pytest.raises(TaskError, match="has images, and the model reads texts"):
        encode(task, loaded.tokenizer)
    with pytest.raises(TaskError, match="has texts, and the model reads images"):
        encode(resolve_task(train=files[0], validation=files[1]), processor)


class TestModel:
    def test_the_head_has_the_tasks_classes(self, gallery):
        loaded = load_backbone(str(gallery / "model"), num_labels=7)
        assert loaded.model.classifier.out_features == 7
        assert loaded.reads_images
        assert [block.index for block in loaded.backbone.blocks] == [0, 1, 2, 3]

    def test_no_image_processor(self, gallery, tmp_path):
        (save_vit(tmp_path / "m") / "preprocessor_config.json").unlink()
        with pytest.raises(BackboneError, match=r"has no preprocessor_config\.json"):
            load_backbone(str(tmp_path / "m"), num_labels=2)

    def test_a_processor_of_another_model(self, tmp_path):
        with pytest.raises(BackboneError, match="cannot read what its image processor makes"):
            load_backbone(str(save_vit(tmp_path / "m", size=20)), num_labels=2)
        with pytest.raises(BackboneError, match="cannot read what its image processor makes"):
            load_backbone(str(save_vit(tmp_path / "g", num_channels=1)), num_labels=2)
