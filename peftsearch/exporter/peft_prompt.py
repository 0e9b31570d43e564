"""Prompt tuning for HF peft: language models alone.

There the prompt stays in front of the text to the end, where ours is taken off again: behind a language model its
positions' logits are surplus, but a classifier's head, which pools over the positions or reads one of them, sees
another input.
"""

from __future__ import annotations

from peftsearch.exporter.formats import refusal
from peftsearch.exporter.peft_adapter import PeftAdapter
from peftsearch.injection.inject import Injection


def read_prompt(injection: Injection) -> PeftAdapter:
    """Make HF peft's prompt tuning of what is injected.

    Raises:
        CheckpointError: The model is a classifier, or has two prompts.
    """
    placement, *more = injection.architecture.placements
    if more:
        raise refusal("peft", injection.architecture, dict.fromkeys(more, "it has one prompt a model"))
    if injection.backbone.head:
        reason = "before a classifier's head it keeps the prompt in the text, which makes it another model"
        raise refusal("peft", injection.architecture, {placement: reason})
    embedding = injection.injected[f"{placement.stack}_{placement.block}_{placement.method}"].get_parameter("embedding")
    length, width = embedding.shape
    return PeftAdapter(
        config="PromptTuningConfig",
        options={
            "num_virtual_tokens": length,
            "token_dim": width,
            # A prompt needs neither, but without them HF peft looks for them under the names of a few families.
            "num_layers": len(injection.backbone.blocks),
            "num_attention_heads": injection.backbone.blocks[0].attention.n_heads,
            "num_transformer_submodules": 1,
        },
        tensors={"prompt_embeddings": embedding},
        told=f"a prompt of {length} positions, whose logits come in front of the text's",
        n_prompt=length,
    )
