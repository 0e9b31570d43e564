"""Export to HF peft: LoRA with a rank and a scale for each map, biases beside it, and the head.

`PeftModel.from_pretrained` loads the folder. A map's rank and alpha go into `rank_pattern` and `alpha_pattern` by full
path, `use_rslora` gives our scale alpha / sqrt(r). LoRA on slices of a fused map (GPT-2) becomes one LoRA of the summed
ranks on the whole map, whose B is zero outside the slices: the same function, with more parameters should training go
on there. Trained biases are values of `bias="lora_only"` where LoRA sits on all of their maps, else of `bias="all"`.

HF peft itself makes the configuration and, before anything is kept, loads the result for a comparison of logits.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from peftsearch.errors import CheckpointError
from peftsearch.export.check import probe, require_equal
from peftsearch.export.packed import unpack
from peftsearch.export.source import Exportable
from peftsearch.injection import Injection, merged
from peftsearch.methods.lora import LowRank
from peftsearch.methods.projections import widen

PREFIX = "base_model.model."
WEIGHTS = "adapter_model.safetensors"


def write_peft(source: Exportable, directory: Path) -> list[str]:
    """Write a folder for `PeftModel.from_pretrained`; the source's model is used up.

    Args:
        source: LoRA, with or without BitFit.
        directory: An empty folder.

    Returns:
        What was written, in lines for the user.

    Raises:
        CheckpointError: HF peft is not installed, or its model's logits differ.
    """
    try:
        import peft
    except ImportError as error:
        raise CheckpointError('--format peft needs HF peft: pip install "peftsearch[peft]"') from error
    injection, model = source.injection, source.injection.model
    unpacked = unpack(model)  # first: what is on packed maps does not fold
    pairs = _pairs(injection)
    biases = _biases(injection)
    config = _config(peft, injection, pairs, biases)
    tensors = _tensors(injection, pairs, biases)
    wanted = probe(model)
    config.save_pretrained(str(directory))
    save_file(tensors, directory / WEIGHTS, {"format": "pt"})
    source.tokenizer.save_pretrained(directory)
    injection.remove()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft's own about names that it asks transformers for
        got = probe(peft.PeftModel.from_pretrained(model, str(directory)))
    difference = require_equal("HF peft", wanted, got)
    held = f"LoRA on {len(pairs)} maps" + (f", {len(biases)} biases ({config.bias})" if biases else "")
    head = f", head {', '.join(config.modules_to_save)}" if config.modules_to_save else ""
    fused = sum(len(found) > 1 or found[0].margins is not None for found in pairs.values())
    lines = [*unpacked, f"HF peft: {held}{head}; same logits to {difference:.1g}"]
    if unpacked:
        lines.append("Load its base with a BitsAndBytesConfig of the same packing, which leaves pooler and head whole")
    if fused:
        lines.append(f"{fused} of the maps are fused: their slices are held as one LoRA of the summed ranks each")
    return lines


def _hooks(model: nn.Module, kind: type[nn.Module]) -> Iterator[tuple[str, Any]]:
    """Paths of hooked modules and the hook modules of a kind on them."""
    for path, module in model.named_modules():
        for hook in module._forward_hooks.values():
            owner = getattr(hook, "__self__", None)
            if isinstance(owner, kind):
                yield path, owner


def _pairs(injection: Injection) -> dict[str, list[LowRank]]:
    pairs: dict[str, list[LowRank]] = {}
    for path, pair in _hooks(injection.model, LowRank):
        pairs.setdefault(path, []).append(pair)
    return pairs


def _biases(injection: Injection) -> dict[str, torch.Tensor]:
    """The trained biases as they are with their deltas, by the paths of their modules."""
    from peftsearch.methods.bitfit import BiasDelta

    paths = [path for path, _ in _hooks(injection.model, BiasDelta)]
    with merged(injection.model):
        return {path: injection.model.get_submodule(path).get_parameter("bias").detach().clone() for path in paths}


def _config(peft: Any, injection: Injection, pairs: dict[str, list[LowRank]], biases: dict[str, torch.Tensor]) -> Any:
    model: Any = injection.model
    ranks = {path: sum(pair.a.shape[0] for pair in found) for path, found in pairs.items()}
    alphas = {path: round(found[0].scaling * math.sqrt(ranks[path]), 12) for path, found in pairs.items()}
    rank, alpha = (Counter(values.values()).most_common(1)[0][0] for values in (ranks, alphas))
    if not biases:
        bias = "none"
    else:
        bias = "lora_only" if biases.keys() <= pairs.keys() else "all"
    return peft.LoraConfig(
        task_type=_task_type(model),
        base_model_name_or_path=str(getattr(model, "name_or_path", "") or injection.backbone.name),
        inference_mode=True,
        r=rank,
        lora_alpha=alpha,
        rank_pattern={path: r for path, r in ranks.items() if r != rank},
        alpha_pattern={path: a for path, a in alphas.items() if a != alpha},
        use_rslora=True,
        target_modules=list(pairs),
        fan_in_fan_out=all(not isinstance(model.get_submodule(path), nn.Linear) for path in pairs),
        bias=bias,
        modules_to_save=list(injection.backbone.head) or None,
    )


def _task_type(model: Any) -> str | None:
    if type(model).__name__.endswith("ForSequenceClassification"):
        return "SEQ_CLS"
    if type(model).__name__.endswith(("ForCausalLM", "LMHeadModel")):
        return "CAUSAL_LM"
    return "SEQ_2_SEQ_LM" if type(model).__name__.endswith("ForConditionalGeneration") else None


def _tensors(
    injection: Injection, pairs: dict[str, list[LowRank]], biases: dict[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """By the names of peft's files."""
    tensors: dict[str, torch.Tensor] = {}
    for path, found in pairs.items():
        tensors[f"{PREFIX}{path}.lora_A.weight"] = torch.cat([pair.a for pair in found])  # (r, d_in)
        # (d_module, r): each slice's B in its rows, zero elsewhere; all share the first one's scale.
        columns = [widen(pair.b.t(), pair.margins).t() * (pair.scaling / found[0].scaling) for pair in found]
        tensors[f"{PREFIX}{path}.lora_B.weight"] = torch.cat(columns, dim=1)
    for path, bias in biases.items():
        tensors[f"{PREFIX}{path}.{'base_layer.' if path in pairs else ''}bias"] = bias
    for path in injection.backbone.head:
        for name, parameter in injection.model.get_submodule(path).named_parameters():
            tensors[f"{PREFIX}{path}.{name}"] = parameter
    return {name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}
