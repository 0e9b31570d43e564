"""Which of transformers' model classes a task is loaded with, told by the model's config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from peftsearch.errors import BackboneError


def classifier_class(config: Any) -> Any:
    """The class of a model with a classification head: of images where transformers has none for texts.

    Perceiver has both, and counts as a model of texts.
    """
    from transformers import AutoModelForImageClassification, AutoModelForSequenceClassification

    reads_texts = type(config) in AutoModelForSequenceClassification._model_mapping
    reads_images = type(config) in AutoModelForImageClassification._model_mapping
    return AutoModelForImageClassification if reads_images and not reads_texts else AutoModelForSequenceClassification


def reads_images(model: Any) -> bool:
    """Whether a model takes pixels instead of tokens."""
    return getattr(model, "main_input_name", None) == "pixel_values"


def model_class(name: str, source: str, options: Mapping[str, Any], generates: bool) -> Any:
    """The class whose `from_pretrained` loads the model.

    Args:
        name: What the user called the model.
        source: Hub id or folder.
        options: What `from_pretrained` is given.
        generates: Whether texts are to be written: a causal or a seq2seq language model, not a classifier.

    Raises:
        BackboneError: The model is an encoder, which cannot generate.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM
    from transformers.models.auto import modeling_auto as tables

    config = AutoConfig.from_pretrained(source, **options)
    if not generates:
        return classifier_class(config)
    if getattr(config, "is_encoder_decoder", False):
        return AutoModelForSeq2SeqLM
    # BERT and its kind are in the table of causal models too, for use as decoders that were never pretrained.
    fills = config.model_type in tables.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    if fills and not getattr(config, "is_decoder", False):
        raise BackboneError(
            f"model {name!r}: {config.model_type} is an encoder and cannot generate; name a causal or seq2seq language "
            "model with --model"
        )
    return AutoModelForCausalLM
