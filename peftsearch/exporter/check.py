"""The check that every export must pass before it is kept: equal logits on a few random inputs."""

from __future__ import annotations

from typing import Any

import torch

from peftsearch.backbone.auto import reads_images
from peftsearch.errors import CheckpointError

TOLERANCE = 1e-5
"""Largest difference allowed between logits, as a share of the larger of 1 and the largest logit."""


def probe(model: Any) -> torch.Tensor:
    """The model's logits on fixed random inputs: two sequences of 12 and 8 tokens, or two images.

    Returns:
        `(2, num_labels)`, or `(2, seq, vocabulary)` for a language model.
    """
    if reads_images(model):
        return _probe_images(model)
    config = model.config.get_text_config()
    n_tokens = model.get_input_embeddings().num_embeddings
    ids = torch.randint(0, n_tokens, (2, 12), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    if isinstance(pad := config.pad_token_id, int) and 0 <= pad < n_tokens:
        ids[ids == pad] = (pad + 1) % n_tokens
        ids[1, 8:], mask[1, 8:] = pad, 0
    end = getattr(config, "eos_token_id", None)
    if getattr(config, "is_encoder_decoder", False) and isinstance(end, int) and 0 <= end < n_tokens:
        ids[ids == end] = (end + 1) % n_tokens if (end + 1) % n_tokens != pad else (end + 2) % n_tokens
        ids[0, -1] = ids[1, 7] = end  # where the head of a classifier reads
    inputs = {"input_ids": ids, "attention_mask": mask}
    if getattr(config, "is_encoder_decoder", False) and not type(model).__name__.endswith("ForSequenceClassification"):
        inputs["decoder_input_ids"] = ids[:, :5]
    with torch.no_grad():
        logits: torch.Tensor = model.eval()(**inputs).logits
    return logits


def _probe_images(model: Any) -> torch.Tensor:
    size = model.config.image_size
    height, width = (size, size) if isinstance(size, int) else size
    pixels = torch.rand((2, model.config.num_channels, height, width), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits: torch.Tensor = model.eval()(pixel_values=pixels).logits
    return logits


def require_equal(what: str, wanted: torch.Tensor, got: torch.Tensor, tolerance: float = TOLERANCE) -> float:
    """Compare an export's logits with the trained model's; an export that differs is never written.

    Returns:
        The largest difference.

    Raises:
        CheckpointError: The difference is above the tolerance, a share of the larger of 1 and the largest logit.
    """
    difference = float((wanted - got).abs().max())
    if not difference <= tolerance * max(1.0, float(wanted.abs().max())):
        raise CheckpointError(
            f"{what}: its logits differ from the trained model's by {difference:.3g}; nothing is written; use "
            "--format peftsearch, and report this"
        )
    return difference
