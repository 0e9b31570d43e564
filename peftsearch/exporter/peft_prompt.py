"""Prompt tuning for HF peft, for language models only.

peft keeps the prompt in front of the text up to the output, while ours is removed before the head. A language model
then only has extra logits for the prompt's positions, but a classifier's head, which pools over the positions or reads
one of them, would see another input.
"""

from __future__ import annotations

from peftsearch.exporter.formats import refusal
from peftsearch.exporter.peft_adapter import PeftAdapter
from peftsearch.injection.inject import Injection


def read_prompt(injection: Injection) -> PeftAdapter:
    """Convert the injected prompt to HF peft's prompt tuning.

    Raises:
        CheckpointError: The model is a classifier, or has two prompts.
    """
    placement, *more = injection.architecture.placements
    if more:
        raise refusal("peft", injection.architecture, dict.fromkeys(more, "it allows one prompt per model"))
    if injection.backbone.head:
        reason = "it keeps the prompt in the input of a classifier's head, which changes the model"
        raise refusal("peft", injection.architecture, {placement: reason})
    embedding = injection.injected[placement.key].get_parameter("embedding")
    length, width = embedding.shape
    return PeftAdapter(
        config="PromptTuningConfig",
        options={
            "num_virtual_tokens": length,
            "token_dim": width,
            # A prompt does not need these, but without them HF peft searches the config for a few families' names.
            "num_layers": len(injection.backbone.blocks),
            "num_attention_heads": injection.backbone.blocks[0].attention.n_heads,
            "num_transformer_submodules": 1,
        },
        tensors={"prompt_embeddings": embedding},
        told=f"a prompt of {length} positions, whose logits come before the text's",
        n_prompt=length,
    )
