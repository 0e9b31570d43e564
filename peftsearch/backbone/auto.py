"""Choose the transformers model class for a task from the model's config.

Membership is looked up in the exported `MODEL_FOR_..._MAPPING`, whose keys are config classes. Code that comes with a
model may register its own classes there; a family is looked up by the config class of transformers itself.
"""

from __future__ import annotations

from typing import Any

from peftsearch.errors import BackboneError


def classifier_class(config: Any) -> Any:
    """The model class with a classification head, for images if transformers has none for texts.

    Perceiver has both and counts as a model of texts.
    """
    from transformers import (
        MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING,
        MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
        AutoModelForImageClassification,
        AutoModelForSequenceClassification,
    )

    reads_texts = type(config) in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING
    reads_images = type(config) in MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING
    return AutoModelForImageClassification if reads_images and not reads_texts else AutoModelForSequenceClassification


def has_classifier(config: Any) -> bool:
    """Whether transformers has a model with a classification head for a config, for texts or for images."""
    from transformers import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING, MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING

    mappings = (MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING, MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING)
    return any(type(config) in mapping for mapping in mappings)


def fills_masks(family: str) -> bool:
    """Whether transformers has a masked language model for a family."""
    from transformers import MODEL_FOR_MASKED_LM_MAPPING

    return _has_family(MODEL_FOR_MASKED_LM_MAPPING, family)


def continues_texts(family: str) -> bool:
    """Whether transformers has a causal language model for a family; BERT-like encoders have one too."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    return _has_family(MODEL_FOR_CAUSAL_LM_MAPPING, family)


def _has_family(mapping: Any, family: str) -> bool:
    from transformers import CONFIG_MAPPING

    return family in CONFIG_MAPPING and CONFIG_MAPPING[family] in mapping


def reads_images(model: Any) -> bool:
    """Whether a model takes pixels instead of tokens."""
    return getattr(model, "main_input_name", None) == "pixel_values"


def model_class(name: str, config: Any, kind: str | None) -> Any:
    """The class whose `from_pretrained` loads the model.

    Args:
        name: The user's name for the model.
        config: The model's config.
        kind: `generation` is a causal or seq2seq language model, `tagging` and `question_answering`
            have a head on every token, all others are classifiers.

    Raises:
        BackboneError: The model is an encoder, which cannot generate.
    """
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoModelForTokenClassification

    if kind in ("tagging", "question_answering"):
        return AutoModelForTokenClassification
    if kind != "generation":
        return classifier_class(config)
    if getattr(config, "is_encoder_decoder", False):
        return AutoModelForSeq2SeqLM
    # BERT-like encoders are registered as causal models too, for use as decoders that were never pretrained.
    if fills_masks(config.model_type) and not getattr(config, "is_decoder", False):
        raise BackboneError(
            f"model {name!r}: {config.model_type} is an encoder and cannot generate; name a causal or seq2seq language "
            "model with --model"
        )
    return AutoModelForCausalLM
