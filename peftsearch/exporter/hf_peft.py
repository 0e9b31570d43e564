"""Export to HF peft: one adapter of LoRA, DoRA, KronA, IA3, LayerNorm tuning or a prompt, and the head.

`PeftModel.from_pretrained` loads the folder. Trained biases can be added to LoRA and DoRA, and the norms of LayerNorm
tuning to everything except a prompt; norms are saved whole, like the head. HF peft itself makes the configuration and,
before anything is kept, loads the result for a comparison of logits.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from peftsearch.errors import CheckpointError
from peftsearch.exporter.check import probe, require_equal
from peftsearch.exporter.formats import peft_tuner
from peftsearch.exporter.packed import unpack
from peftsearch.exporter.peft_adapter import PREFIX, PeftAdapter
from peftsearch.exporter.peft_krona import read_krona
from peftsearch.exporter.peft_lora import read_lora
from peftsearch.exporter.peft_prompt import read_prompt
from peftsearch.exporter.peft_scales import read_ia3, read_layernorm, read_norms
from peftsearch.exporter.source import Exportable
from peftsearch.injection.inject import Injection, injection_of
from peftsearch.injection.reducing import reduce

WEIGHTS = "adapter_model.safetensors"


def write_peft(source: Exportable, directory: Path) -> list[str]:
    """Write a folder for `PeftModel.from_pretrained`; consumes the source's model.

    Args:
        source: An architecture that `formats.require_format` accepts.
        directory: An empty folder.

    Returns:
        Lines for the user that describe the export.

    Raises:
        CheckpointError: HF peft is not installed or cannot hold the shapes, or its model's logits differ.
    """
    try:
        import peft
    except ImportError as error:
        raise CheckpointError('--format peft needs HF peft: pip install "peftsearch[peft]"') from error
    model: Any = source.injection.model
    unpacked = unpack(model)  # first, since parameters on packed maps cannot be folded
    reduce(model)
    injection = injection_of(model)
    norms = {} if peft_tuner(injection.architecture) == "layernorm" else read_norms(injection)
    adapter = _read(injection, norms)
    wanted = probe(model)
    _config(peft, injection, adapter, [*injection.backbone.head, *norms]).save_pretrained(str(directory))
    save_file(_tensors(injection, adapter, norms), directory / WEIGHTS, {"format": "pt"})
    source.tokenizer.save_pretrained(directory)
    injection.remove()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft warns about names that it looks up in transformers
        got = probe(peft.PeftModel.from_pretrained(model, str(directory)))
    difference = require_equal("HF peft", wanted, got[:, adapter.n_prompt :] if adapter.n_prompt else got)
    beside = f", {len(norms)} norms" if norms else ""
    head = f", head {', '.join(injection.backbone.head)}" if injection.backbone.head else ""
    lines = [*unpacked, f"HF peft: {adapter.told}{beside}{head}; same logits to {difference:.1g}"]
    if unpacked:
        lines.append("Load the base model with a BitsAndBytesConfig of the same packing that skips pooler and head")
    return [*lines, *adapter.notes]


def _config(peft: Any, injection: Injection, adapter: PeftAdapter, saved: list[str]) -> Any:
    model: Any = injection.model
    whole = {"modules_to_save": saved} if saved else {}  # a prompt's configuration lacks the option
    return getattr(peft, adapter.config)(
        task_type=_task_type(model),
        base_model_name_or_path=str(getattr(model, "name_or_path", "") or injection.backbone.name),
        inference_mode=True,
        **adapter.options,
        **whole,
    )


def _read(injection: Injection, norms: dict[str, dict[str, torch.Tensor]]) -> PeftAdapter:
    tuner = peft_tuner(injection.architecture)
    if tuner in ("lora", "dora"):
        return read_lora(injection, norms)
    readers = {"krona": read_krona, "ia3": read_ia3, "layernorm": read_layernorm, "prompt": read_prompt}
    assert tuner in readers, f"{tuner} was accepted"
    return readers[tuner](injection)


def _task_type(model: Any) -> str | None:
    if type(model).__name__.endswith("ForSequenceClassification"):
        return "SEQ_CLS"
    if type(model).__name__.endswith("ForTokenClassification"):
        return "TOKEN_CLS"
    if type(model).__name__.endswith(("ForCausalLM", "LMHeadModel")):
        return "CAUSAL_LM"
    return "SEQ_2_SEQ_LM" if type(model).__name__.endswith("ForConditionalGeneration") else None


def _tensors(
    injection: Injection, adapter: PeftAdapter, norms: dict[str, dict[str, torch.Tensor]]
) -> dict[str, torch.Tensor]:
    """Tensors by their names in peft's files: those of the adapter, and the modules that are saved whole."""
    tensors = dict(adapter.tensors)
    tensors |= {f"{PREFIX}{path}.{name}": value for path, values in norms.items() for name, value in values.items()}
    for path in injection.backbone.head:
        for name, parameter in injection.model.get_submodule(path).named_parameters():
            tensors[f"{PREFIX}{path}.{name}"] = parameter
    return {name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}
