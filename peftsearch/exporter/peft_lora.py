"""LoRA and DoRA for HF peft: a rank and a scale for each map, and trained biases.

A map's rank and alpha go into `rank_pattern` and `alpha_pattern` by full path; `use_rslora` gives our scale
alpha / sqrt(r). Pairs on slices of a fused map (GPT-2) become one pair on the whole map, whose rank is the sum of
theirs, whose B is zero outside the slices, and for DoRA whose magnitudes outside the slices are the norms of the rows.
The function is the same, but with more parameters if training continues in peft. Trained biases are stored as
`bias="lora_only"` if LoRA acts on all of their maps, else as `bias="all"`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection
from typing import Any

import torch
from torch import nn

from peftsearch.exporter.peft_adapter import PREFIX, PeftAdapter, are_conv1d, hooks_of
from peftsearch.injection.inject import Injection
from peftsearch.injection.merging import merged
from peftsearch.methods.layers.bitfit import BiasDelta
from peftsearch.methods.layers.dora import Decomposed, read_weight
from peftsearch.methods.layers.lora import LowRank
from peftsearch.methods.layers.projections import widen

Pair = LowRank | Decomposed


def read_lora(injection: Injection, saved: Collection[str] = ()) -> PeftAdapter:
    """Convert the injected LoRA or DoRA to HF peft's.

    Args:
        injection: LoRA or DoRA, with or without BitFit.
        saved: Paths of modules that are saved whole, including their biases.
    """
    pairs: dict[str, list[Pair]] = {}
    for path, pair in hooks_of(injection.model, LowRank, Decomposed):
        pairs.setdefault(path, []).append(pair)
    biases = _biases(injection, saved)
    options = _options(injection.model, pairs, biases)
    fused = sum(len(found) > 1 or found[0].margins is not None for found in pairs.values())
    name = "DoRA" if options["use_dora"] else "LoRA"
    return PeftAdapter(
        config="LoraConfig",
        options=options,
        tensors=_tensors(injection.model, pairs, biases),
        told=f"{name} on {len(pairs)} maps" + (f", {len(biases)} biases ({options['bias']})" if biases else ""),
        notes=(f"{fused} of the maps are fused: each has one {name} whose rank is the sum over its slices",)
        if fused
        else (),
    )


def _biases(injection: Injection, saved: Collection[str]) -> dict[str, torch.Tensor]:
    """The trained biases, including their deltas, by the paths of their modules."""
    paths = [path for path, _ in hooks_of(injection.model, BiasDelta) if path not in saved]
    with merged(injection.model):
        return {path: injection.model.get_submodule(path).get_parameter("bias").detach().clone() for path in paths}


def _options(model: nn.Module, pairs: dict[str, list[Pair]], biases: dict[str, torch.Tensor]) -> dict[str, Any]:
    ranks = {path: sum(pair.a.shape[0] for pair in found) for path, found in pairs.items()}
    alphas = {path: round(found[0].scaling * math.sqrt(ranks[path]), 12) for path, found in pairs.items()}
    rank, alpha = (Counter(values.values()).most_common(1)[0][0] for values in (ranks, alphas))
    if not biases:
        bias = "none"
    else:
        bias = "lora_only" if biases.keys() <= pairs.keys() else "all"
    return {
        "r": rank,
        "lora_alpha": alpha,
        "rank_pattern": {path: r for path, r in ranks.items() if r != rank},
        "alpha_pattern": {path: a for path, a in alphas.items() if a != alpha},
        "use_rslora": True,
        "use_dora": any(isinstance(found[0], Decomposed) for found in pairs.values()),
        "target_modules": list(pairs),
        "fan_in_fan_out": are_conv1d(model, pairs),
        "bias": bias,
    }


def _tensors(
    model: nn.Module, pairs: dict[str, list[Pair]], biases: dict[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = {}
    for path, found in pairs.items():
        tensors[f"{PREFIX}{path}.lora_A.weight"] = torch.cat([pair.a for pair in found])  # (r, d_in)
        # (d_module, r): each slice's B in its rows, zero elsewhere; all share the first one's scale.
        columns = [widen(pair.b.t(), pair.margins).t() * (pair.scaling / found[0].scaling) for pair in found]
        tensors[f"{PREFIX}{path}.lora_B.weight"] = torch.cat(columns, dim=1)
        deltas = [widen(pair.magnitude, pair.margins) for pair in found if isinstance(pair, Decomposed)]
        if deltas:
            norms = torch.linalg.vector_norm(read_weight(model.get_submodule(path)).to(deltas[0].dtype), dim=1)
            tensors[f"{PREFIX}{path}.lora_magnitude_vector"] = norms + sum(deltas)  # (d_module,)
    for path, bias in biases.items():
        tensors[f"{PREFIX}{path}.{'base_layer.' if path in pairs else ''}bias"] = bias
    return tensors
