"""Load the image processor of a model that reads images, and check that the two fit together."""

from __future__ import annotations

from typing import Any

import torch

from peftsearch.errors import BackboneError, one_line


class ImageReader:
    """Load image processors as `AutoTokenizer` loads tokenizers."""

    @staticmethod
    def from_pretrained(source: str, **options: Any) -> Any:
        """The image processor of a model, on Pillow and NumPy.

        Args:
            source: Hub id or folder.
            options: Arguments for `from_pretrained`.

        Raises:
            BackboneError: Pillow is missing, or the model has no image processor.
        """
        from importlib.util import find_spec

        if find_spec("PIL") is None:
            raise BackboneError(f"model {source!r}: reading images needs Pillow: pip install 'peftsearch[images]'")
        from transformers import AutoImageProcessor

        try:
            # Not torchvision, even if installed: its resizing gives different pixels, and thus different scores.
            return AutoImageProcessor.from_pretrained(source, backend="pil", **options)
        except OSError as error:
            if "preprocessor_config.json" not in str(error):
                raise
            raise BackboneError(
                f"model {source!r}: has no preprocessor_config.json, which defines how images become pixels; add that "
                "of the model it was trained from"
            ) from error


def check_reading(name: str, model: Any, processor: Any) -> None:
    """Run a black image through the processor and the model.

    Raises:
        BackboneError: The model cannot read the processor's output.
    """
    from PIL import Image

    try:
        pixels = processor(images=[Image.new("RGB", (8, 8))], return_tensors="pt")["pixel_values"]
        with torch.no_grad():
            model.eval()(pixel_values=pixels.to(model.device, model.dtype))
    except Exception as error:  # models raise different errors on bad inputs: ValueError, RuntimeError, IndexError
        raise BackboneError(
            f"model {name!r}: cannot read what its image processor makes ({one_line(error, 120)}); preprocessor_config"
            ".json must have the model's size and three channels"
        ) from error
