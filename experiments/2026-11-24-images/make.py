"""Write scikit-learn's 1,797 digits (8 x 8, 17 greys) as PNG files, and a ViT that has not been trained.

`pretraining` holds the digits 0 to 4, `task` the digits 5 to 9: what the model is pretrained on are other classes than
those that it is tuned for. Splits are drawn class by class with one seed.
"""

import random
import sys
from collections import defaultdict
from pathlib import Path

import torch
from PIL import Image
from sklearn.datasets import load_digits
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil

SHARES = {"pretraining": {"train": 0.8, "validation": 0.2}, "task": {"train": 0.5, "validation": 0.25, "test": 0.25}}


def write_images(folder: Path) -> None:
    """FOLDER/PART/SPLIT/DIGIT/NUMBER.png."""
    digits = load_digits()
    of_class = defaultdict(list)
    for number, digit in enumerate(digits.target):
        of_class[int(digit)].append(number)
    for digit, numbers in of_class.items():
        part = "pretraining" if digit < 5 else "task"
        random.Random(digit).shuffle(numbers)
        start = 0.0
        for split, share in SHARES[part].items():
            first, start = round(start * len(numbers)), start + share
            place = folder / part / split / str(digit)
            place.mkdir(parents=True)
            for number in numbers[first : round(start * len(numbers))]:
                grey = (digits.images[number] * 255 / 16).round().astype("uint8")
                Image.fromarray(grey).save(place / f"{number}.png")


def write_model(folder: Path) -> None:
    """A ViT of 6 blocks of width 64 on 16 patches of 2 x 2, with random weights."""
    torch.manual_seed(0)
    config = ViTConfig(
        image_size=8, patch_size=2, hidden_size=64, num_hidden_layers=6, num_attention_heads=4, intermediate_size=256
    )
    ViTForImageClassification(config).save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 8, "width": 8}).save_pretrained(folder)


if __name__ == "__main__":
    root = Path(sys.argv[1])
    write_images(root)
    write_model(root / "untrained")
