"""A tiny random ViT with its image processor, and folders of small images that its classes tell apart."""

import random
from pathlib import Path

import torch
from PIL import Image
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil

COLOURS = {"blue": (40, 40, 220), "green": (40, 200, 40), "red": (220, 40, 40)}


def vit(**changes: object) -> ViTForImageClassification:
    """A ViT of 4 blocks, hidden 32, on images of 16 x 16 in patches of 4 x 4, always with the same weights."""
    shape = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 64}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return ViTForImageClassification(ViTConfig(image_size=16, patch_size=4, **{**shape, **changes})).eval()


def save_vit(path: Path, size: int = 16, **changes: object) -> Path:
    """A folder with it and its image processor, which makes images of this size."""
    vit(**changes).save_pretrained(path)
    ViTImageProcessorPil(size={"height": size, "width": size}).save_pretrained(path)
    return path


def picture(colour: tuple[int, int, int], rng: random.Random) -> Image.Image:
    """A noisy image of 9 x 12 with a leaning to one colour."""
    image = Image.new("RGB", (9, 12))
    image.putdata([tuple(min(255, max(0, c + rng.randint(-90, 90))) for c in colour) for _ in range(9 * 12)])
    return image


def save_images(folder: Path, n: int = 8, seed: int = 0, classes: tuple[str, ...] = tuple(COLOURS)) -> Path:
    """A folder of class folders, `n` images each; equal seeds give equal images."""
    rng = random.Random(seed)
    for name in classes:
        (folder / name).mkdir(parents=True)
        for i in range(n):
            picture(COLOURS[name], rng).save(folder / name / f"{i}.png")
    return folder
