"""Export to a plain transformers model: mergeable methods are folded into the weights, others saved separately.

The folder of a design that merges in part holds the model in `backbone/`, where no one takes it for the whole, and in
`adapter/` a folder of `peftsearch.save` whose backbone is that model: `peftsearch.load(None, DIR/adapter)` loads both.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from peftsearch.backbone.private_torch import hook_owners
from peftsearch.backbone.private_transformers import commit_of
from peftsearch.backbone.quiet import quiet
from peftsearch.design.architecture import Architecture, Placement
from peftsearch.errors import CheckpointError
from peftsearch.exporter.answers import as_answers
from peftsearch.exporter.check import TOLERANCE, probe, require_equal
from peftsearch.exporter.formats import name_blocks, name_methods, unmerged
from peftsearch.exporter.packed import unpack
from peftsearch.exporter.source import Exportable
from peftsearch.exporter.usage import FOLDED
from peftsearch.injection.checkpoint import load, save
from peftsearch.injection.inject import NAME, Injection, inject
from peftsearch.injection.merging import merged
from peftsearch.injection.states import set_state, state
from peftsearch.methods.abilities import Foldable
from peftsearch.tasks.kinds import QUESTIONS

CONFIG = "config.json"
BESIDE, BACKBONE = "adapter", "backbone"
"""Subfolders of a partial export: the methods that do not merge, and the model with those that do."""
ROUNDED = 0.05
"""Difference allowed once the weights are rounded to the base's 16 bits; before that it is `TOLERANCE`."""
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
    use_cache, dtype = _own_settings(model)
    tolerance = TOLERANCE if dtype is None else ROUNDED
    folded = [] if left or dtype is not None else _fold_target(injection)  # 16 bits do not hold targets far from 0
    wanted = probe(model)
    if use_cache is not None:
        model.config.use_cache = use_cache
    with merged(model), quiet():
        if _has_foldable_hooks(model):
            raise CheckpointError("merged: the backbone's weights are quantised; name full-precision ones with --model")
        if dtype is not None:
            require_equal("merged", wanted, probe(model))
        weights = {name: value for name, value in model.state_dict().items() if not name.startswith(f"{NAME}.")}
        narrow = {
            name: value.to(dtype) if dtype is not None and value.is_floating_point() else value
            for name, value in weights.items()
        }
        model.save_pretrained(place, state_dict={name: value.contiguous() for name, value in narrow.items()})
    if dtype is not None:  # transformers writes the type of the model, not of what it is given
        config = json.loads((place / CONFIG).read_text(encoding="utf-8"))
        config["dtype"] = str(dtype).removeprefix("torch.")
        (place / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    source.tokenizer.save_pretrained(place)
    if not left:
        difference = _compare(model, wanted, directory, tolerance=tolerance)
        precision = "" if dtype is None else f" in {str(dtype).removeprefix('torch.')}, as the base's"
        told = f"transformers: {type(model).__name__}{precision}; same logits to {difference:.1g}"
        answers = None
        if injection.injected.task.get("kind") == QUESTIONS:
            answers = as_answers(model, injection.backbone.head, directory)
        return [*unpacked, told, *folded, *([answers] if answers else [])]
    _save_rest(injection, left, directory)
    rest, blocks = name_methods(left), name_blocks(left)
    facts = {"backbone": BACKBONE, "beside": BESIDE, "model": type(model).__name__, "rest": rest, "blocks": blocks}
    (directory / "README.md").write_text(_README.format(**facts), encoding="utf-8")
    return [
        *unpacked,
        f"transformers: {type(model).__name__} in {BACKBONE}/, and unmerged methods in {BESIDE}/: {rest} on {blocks}; "
        f"together the same logits to {_compare(model, wanted, place, directory / BESIDE, tolerance):.1g}",
    ]


def _fold_target(injection: Injection) -> list[str]:
    """Let the head of a regression give targets instead of standardised ones, where its last map has a bias."""
    task, model = injection.injected.task, injection.model
    if task.get("kind") != "regression" or "mean" not in task:
        return []
    modules = [module for path in injection.backbone.head for module in model.get_submodule(path).modules()]
    last = next((module for module in reversed(modules) if isinstance(module, nn.Linear)), None)
    if last is None or last.bias is None or last.out_features != 1:
        return []
    wanted = task["mean"] + task["scale"] * probe(model)
    with torch.no_grad():
        last.weight *= task["scale"]
        last.bias.mul_(task["scale"]).add_(task["mean"])
    require_equal("regression", wanted, probe(model))
    return [FOLDED]


def _has_foldable_hooks(model: nn.Module) -> bool:
    owners = (owner for module in model.modules() for owner in hook_owners(module).values())
    return any(isinstance(owner, Foldable) for owner in owners)


def _own_settings(model: Any) -> tuple[bool | None, torch.dtype | None]:
    """The base's own `use_cache`, and its own type of weights where it is narrower than float32; None if unknown."""
    from transformers import AutoConfig

    try:
        with quiet():
            own = AutoConfig.from_pretrained(
                model.config.name_or_path,
                local_files_only=True,
                trust_remote_code=False,
                revision=commit_of(model.config) or None,
            )
    except (OSError, ValueError):  # a GGUF file, or a model that was not loaded by its name
        return None, None
    dtype = getattr(own, "dtype", None)
    return getattr(own, "use_cache", None), dtype if dtype in (torch.bfloat16, torch.float16) else None


def _compare(
    model: Any, wanted: torch.Tensor, directory: Path, beside: Path | None = None, tolerance: float = TOLERANCE
) -> float:
    """Load the folder as a user would, and compare its logits with the trained model's."""
    with quiet():
        read = type(model).from_pretrained(directory, dtype=torch.float32)
    if beside is not None:
        load(read, beside)
    return require_equal("merged", wanted, probe(read), tolerance)


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
