"""The formats, and what each of them can hold: known from the architecture alone, before a model is loaded."""

from __future__ import annotations

from collections.abc import Sequence

from peftsearch.architecture import Architecture, Placement
from peftsearch.errors import CheckpointError
from peftsearch.methods import METHODS

FORMATS = {
    "peft": "HF peft",
    "adapters": "AdapterHub's adapters",
    "merged": "a plain transformers model",
    "peftsearch": "a folder of peftsearch.save",
}
_HELD = {"peft": {"lora", "bitfit"}, "adapters": {"lora", "adapter", "adapter_pfeiffer", "adapter_parallel", "prefix"}}
_REASONS = {
    ("peft", "prefix"): "its prefix moves the positions of the text, which makes it another model",
    ("peft", "bitfit"): "it trains biases only beside LoRA",
    ("peft", "adapter"): "it has no bottleneck adapter",
    ("peft", "adapter_pfeiffer"): "it has no bottleneck adapter",
    ("peft", "adapter_parallel"): "it has no bottleneck adapter",
    ("adapters", "bitfit"): "it has no BitFit",
}


def placements_in_the_way(form: str, architecture: Architecture) -> list[Placement]:
    """The placements that a format cannot hold; empty where it holds the architecture.

    For `merged` they are in the way only where nothing merges: the rest of a hybrid stays as a folder beside it.
    """
    placements = list(architecture.placements)
    if form == "merged":
        return [] if any(METHODS[p.method].merges for p in placements) else placements
    left = [p for p in placements if form in _HELD and p.method not in _HELD[form]]
    if form == "adapters":
        left += _second_bottlenecks(placements)
    if form == "peft" and not left and all(p.method != "lora" for p in placements):
        return placements
    return left


def _second_bottlenecks(placements: list[Placement]) -> list[Placement]:
    """What comes after the first bottleneck of a block, since all of them act on its feed-forward network."""
    taken: set[tuple[str, int]] = set()
    second = []
    for p in placements:
        if p.method.startswith("adapter"):
            if (p.stack, p.block) in taken:
                second.append(p)
            taken.add((p.stack, p.block))
    return second


def require_format(form: str, architecture: Architecture) -> None:
    """Refuse a format that cannot hold an architecture.

    Raises:
        CheckpointError: Naming the blocks and methods in the way, and the formats that can.
    """
    if form in ("peft", "adapters") and not architecture.placements:
        raise CheckpointError(f"{FORMATS[form]} cannot hold the head alone; formats that can: merged, peftsearch")
    left = placements_in_the_way(form, architecture)
    if not left:
        return
    methods = [method for method in METHODS if any(p.method == method for p in left)]
    told = "; ".join(
        f"{method} on {name_blocks([p for p in left if p.method == method])} ({_reason(form, method)})"
        for method in methods
    )
    others = [f for f in FORMATS if f != form and not placements_in_the_way(f, architecture)]
    raise CheckpointError(f"{FORMATS[form]} cannot hold {told}; formats that can: {', '.join(map(_note, others))}")


def _reason(form: str, method: str) -> str:
    if form == "merged":
        return "it does not merge"
    if method in _HELD[form] and form == "adapters":
        return "it has one bottleneck a place"
    return _REASONS.get((form, method), "this export does not write it")


def _note(form: str) -> str:
    return {"adapters": "adapters (the configuration)", "merged": "merged (what does not merge beside it)"}.get(
        form, form
    )


def name_blocks(placements: Sequence[Placement]) -> str:
    """Name blocks in runs: `encoder blocks 0-3, 5`."""
    stacks: dict[str, list[int]] = {}
    for p in placements:
        stacks.setdefault(p.stack, []).append(p.block)
    return " and ".join(f"{stack} blocks {_runs(sorted(set(blocks)))}" for stack, blocks in stacks.items())


def _runs(numbers: list[int]) -> str:
    runs: list[list[int]] = []
    for n in numbers:
        if runs and runs[-1][1] == n - 1:
            runs[-1][1] = n
        else:
            runs.append([n, n])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)
