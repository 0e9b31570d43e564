"""Export to a plain transformers model: mergeable methods are folded into the weights, others saved separately.

The folder of a design that merges in part holds the model in `backbone/`, where no one takes it for the whole, and in
`adapter/` a folder of `peftsearch.save` whose backbone is that model: `peftsearch.load(None, DIR/adapter)` loads both.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from peftsearch.backbone.load import quiet
from peftsearch.backbone.private_torch import hook_owners
from peftsearch.design.architecture import Architecture, Placement
from peftsearch.errors import CheckpointError
from peftsearch.exporter.check import probe, require_equal
from peftsearch.exporter.formats import name_blocks, name_methods, unmerged
from peftsearch.exporter.packed import unpack
from peftsearch.exporter.source import Exportable
from peftsearch.injection.checkpoint import load, save
from peftsearch.injection.inject import NAME, Injection, inject
from peftsearch.injection.merging import merged
from peftsearch.injection.states import set_state, state
from peftsearch.methods.abilities import Foldable

BESIDE, BACKBONE = "adapter", "backbone"
"""Subfolders of a partial export: the methods that do not merge, and the model with those that do."""
_README = """# A model in two parts

`{backbone}/` holds {model} with the methods that merge folded into its weights. It is not the trained model: {rest} on
{blocks} do not merge and are in `{beside}/`. Load both:

```python
import peftsearch

model = peftsearch.load(None, "{beside}").model
```
"""


def write_merged(source: Exportable, directory: Path) -> list[str]:
    """Write a folder for transformers' `from_pretrained`; consumes the source's model.

    Args:
        source: An architecture with at least one method that merges, or only the head.
        directory: An empty folder.

    Returns:
        Lines for the user that describe the export.

    Raises:
        CheckpointError: The weights are packed in an unknown way, or the merged model's logits differ.
    """
    injection = source.injection
    model: Any = injection.model
    left = unmerged(injection.architecture)
    place = directory / BACKBONE if left else directory
    unpacked = unpack(model)
    wanted = probe(model)
    with merged(model), quiet():
        if _has_foldable_hooks(model):
            raise CheckpointError("merged: the backbone's weights are quantised; name full-precision ones with --model")
        weights = {name: value for name, value in model.state_dict().items() if not name.startswith(f"{NAME}.")}
        model.save_pretrained(place, state_dict={name: value.contiguous() for name, value in weights.items()})
    source.tokenizer.save_pretrained(place)
    if not left:
        told = f"transformers: {type(model).__name__}; same logits to {_compare(model, wanted, directory):.1g}"
        return [*unpacked, told]
    _save_rest(injection, left, directory)
    rest, blocks = name_methods(left), name_blocks(left)
    facts = {"backbone": BACKBONE, "beside": BESIDE, "model": type(model).__name__, "rest": rest, "blocks": blocks}
    (directory / "README.md").write_text(_README.format(**facts), encoding="utf-8")
    return [
        *unpacked,
        f"transformers: {type(model).__name__} in {BACKBONE}/, and unmerged methods in {BESIDE}/: {rest} on {blocks}; "
        f"together the same logits to {_compare(model, wanted, place, directory / BESIDE):.1g}",
    ]


def _has_foldable_hooks(model: nn.Module) -> bool:
    owners = (owner for module in model.modules() for owner in hook_owners(module).values())
    return any(isinstance(owner, Foldable) for owner in owners)


def _compare(model: Any, wanted: torch.Tensor, directory: Path, beside: Path | None = None) -> float:
    """Load the folder as a user would, and compare its logits with the trained model's."""
    with quiet():
        read = type(model).from_pretrained(directory)
    if beside is not None:
        load(read, beside)
    return require_equal("merged", wanted, probe(read))


def _save_rest(injection: Injection, left: Sequence[Placement], directory: Path) -> None:
    """Save the placements that do not merge, with the head, on the model beside them."""
    model, task = injection.model, injection.injected.task
    keys = {f"{NAME}.{p.key}" for p in left}
    values: dict[str, torch.Tensor] = {
        name: value
        for name, value in state(model).items()
        if not name.startswith(f"{NAME}.") or ".".join(name.split(".")[:2]) in keys
    }
    injection.remove()
    with inject(model, Architecture(placements=tuple(left)), injection.backbone):
        set_state(model, values)
        save(model, directory / BESIDE, task=task, base=f"../{BACKBONE}")
