"""IA3 and LayerNorm tuning for HF peft.

peft's IA3 vectors are ours plus one; a fused map (GPT-2) has one vector for the whole map, which is one outside the
slices of keys and values. LayerNorm tuning copies whole norms: if only the gains are trained, the biases keep the
backbone's values. In both cases the function is the same, but with more parameters if training continues in peft.
"""

from __future__ import annotations

import torch

from peftsearch.exporter.peft_adapter import PREFIX, PeftAdapter, are_conv1d, hooks_of
from peftsearch.injection.inject import Injection
from peftsearch.injection.merging import merged
from peftsearch.methods.layers.ia3 import InputScale, OutputScale
from peftsearch.methods.layers.layernorm import NormDelta
from peftsearch.methods.layers.projections import widen


def read_ia3(injection: Injection) -> PeftAdapter:
    """Convert the injected IA3 to HF peft's."""
    scales: dict[str, torch.Tensor] = {}
    for path, part in hooks_of(injection.model, OutputScale):
        delta = widen(part.delta, part.margins)[:, None]  # (d_module, 1)
        scales[path] = scales.get(path, 1.0) + delta
    inner = {path: 1.0 + part.delta[None] for path, part in hooks_of(injection.model, InputScale)}  # (1, d_ff)
    return PeftAdapter(
        config="IA3Config",
        options={
            "target_modules": [*scales, *inner],
            "feedforward_modules": list(inner),
            "fan_in_fan_out": are_conv1d(injection.model, [*scales, *inner]),
        },
        tensors={f"{PREFIX}{path}.ia3_l": scale for path, scale in (scales | inner).items()},
        told=f"IA3 on {len(scales)} maps' outputs and {len(inner)} maps' inputs",
    )


def read_layernorm(injection: Injection) -> PeftAdapter:
    """Convert the injected LayerNorm tuning to HF peft's."""
    norms = read_norms(injection)
    return PeftAdapter(
        config="LNTuningConfig",
        options={"target_modules": list(norms)},
        tensors={
            f"{PREFIX}{path}.ln_tuning_layers.{name}": value
            for path, values in norms.items()
            for name, value in values.items()
        },
        told=f"LayerNorm tuning of {len(norms)} norms",
    )


def read_norms(injection: Injection) -> dict[str, dict[str, torch.Tensor]]:
    """All parameters of the norms that LayerNorm tuning acts on, including their deltas, by path and name."""
    paths = [path for path, _ in hooks_of(injection.model, NormDelta)]
    with merged(injection.model):
        return {
            path: {name: p.detach().clone() for name, p in injection.model.get_submodule(path).named_parameters()}
            for path in paths
        }
