"""Export to AdapterHub's `adapters`: the configuration, as JSON for its `AdapterConfig.load`.

The configuration is a `ConfigUnion` of one configuration for each method and size, whose `leave_out` names all other
blocks (counted over the encoder and then the decoder, as `adapters` counts). A union of `adapters` takes one rank of
LoRA and one length of prefix: further ones go into separate files, to be added as separate adapters and activated as
one `Stack`. The package pins an older transformers than this project needs, so it is not a dependency.

Left out: the trained parameters, which have other names in `adapters`.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

from peftsearch.backbone.anatomy import Backbone
from peftsearch.exporter.source import Exportable
from peftsearch.methods import get_method, rank_of
from peftsearch.methods.adapter_parallel import ParallelAdapter
from peftsearch.methods.lora import LoRA

FILE = "adapters.json"


def write_adapters(source: Exportable, directory: Path) -> list[str]:
    """Write the configuration of an architecture without BitFit into a folder.

    Returns:
        Lines for the user that list the written files.
    """
    unions = list_unions(source)
    names = [FILE] if len(unions) == 1 else [f"adapters-{i + 1}.json" for i in range(len(unions))]
    for name, configs in zip(names, unions, strict=True):
        text = json.dumps({"architecture": "union", "configs": configs}, indent=2)
        (directory / name).write_text(text + "\n", encoding="utf-8")
    first = f"adapters: {', '.join(names)}; model.add_adapter(NAME, AdapterConfig.load(FILE))"
    return [first if len(unions) == 1 else f"{first} for each, then train_adapter(Stack(*NAMES))"]


def list_unions(source: Exportable) -> list[list[dict[str, Any]]]:
    """The configurations of each union; the i-th union gets the i-th rank of LoRA and the i-th length of prefix."""
    backbone = source.injection.backbone
    positions = {(block.stack, block.index): i for i, block in enumerate(backbone.blocks)}
    blocks: dict[tuple[str, int], list[int]] = {}
    for p in source.injection.architecture.placements:
        blocks.setdefault((p.method, p.size), []).append(positions[p.stack, p.block])
    everywhere = set(range(len(backbone.blocks)))
    unions: list[list[dict[str, Any]]] = [[]]
    seen: Counter[str] = Counter()
    for method, size in sorted(blocks, key=lambda key: (rank_of(key[0]), key[1])):
        config = _config(method, size, backbone) | {"leave_out": sorted(everywhere - set(blocks[method, size]))}
        at = seen[method] if method in ("lora", "prefix") else 0
        seen[method] += 1
        if at == len(unions):
            unions.append([])
        unions[at].append(config)
    return unions


def _config(method: str, size: int, backbone: Backbone) -> dict[str, Any]:
    if method == "lora":
        own = get_method("lora")
        assert isinstance(own, LoRA)
        return {
            "architecture": "lora",
            "selfattn_lora": True,
            "intermediate_lora": False,
            "output_lora": False,
            "r": size,
            "alpha": own.alpha * math.sqrt(size),  # the scale is alpha / r in adapters, alpha / sqrt(r) here
            "attn_matrices": [target[0] for target in own.targets],
        }
    if method == "prefix":
        return {
            "architecture": "prefix_tuning",
            "encoder_prefix": True,
            "cross_prefix": _crosses(backbone),
            "flat": True,
            "prefix_length": size,
        }
    config = _bottleneck(method, size, backbone.blocks[0].hidden_size)
    return config | {"cross_adapter": method == "adapter" and _crosses(backbone)}


def _crosses(backbone: Backbone) -> bool:
    """Whether a decoder reads an encoder, since our methods act on that attention too."""
    return any(block.cross_attention is not None for block in backbone.blocks)


def _bottleneck(method: str, width: int, hidden: int) -> dict[str, Any]:
    """A `BnConfig` that, like ours, acts on a sub-layer's output before the residual and the norm."""
    config: dict[str, Any] = {
        "architecture": None,
        "mh_adapter": method == "adapter",
        "output_adapter": True,
        "reduction_factor": _reduction_factor(width, hidden),
        "non_linearity": "gelu",
        "original_ln_before": False,
        "original_ln_after": True,
    }
    own = get_method(method)
    if isinstance(own, ParallelAdapter):
        config |= {"is_parallel": True, "scaling": own.scaling, "init_weights": "mam_adapter"}
    return config


def _reduction_factor(width: int, hidden: int) -> float:
    """The factor that gives the width in `adapters`, which computes hidden // factor in floating point."""
    factor = hidden / width
    return factor if int(hidden // factor) == width else hidden / (width + 0.5)
