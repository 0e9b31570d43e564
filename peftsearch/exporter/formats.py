"""Export formats and the architectures that each can hold, decided before a model is loaded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from peftsearch.design.architecture import Architecture, Placement
from peftsearch.errors import CheckpointError
from peftsearch.methods import base_name, get_method, rank_of
from peftsearch.methods.abilities import Reducible
from peftsearch.methods.ia3 import IA3

FORMATS = {
    "peft": "HF peft",
    "adapters": "AdapterHub's adapters",
    "merged": "a plain transformers model",
    "peftsearch": "a folder of peftsearch.save",
}
_TUNERS = ("lora", "dora", "krona", "ia3", "prompt", "layernorm")
"""Methods that HF peft has a configuration for; one adapter holds only one of them."""
_BESIDE = {"bitfit": ("lora", "dora"), "layernorm": ("lora", "dora", "krona", "ia3")}
"""Methods that HF peft can add to some tuners: biases by `bias`, norms by `modules_to_save`."""
_ADAPTERS = ("lora", "adapter", "adapter_pfeiffer", "adapter_parallel", "prefix")
_REASONS = {
    ("peft", "prefix"): "its prefix shifts the positions of the text, which changes the model",
    ("peft", "bitfit"): "it trains biases only together with LoRA or DoRA",
    ("peft", "adapter"): "it has no bottleneck adapter",
    ("peft", "adapter_pfeiffer"): "it has no bottleneck adapter",
    ("peft", "adapter_parallel"): "it has no bottleneck adapter",
    ("adapters", "bitfit"): "it has no BitFit",
}


def placements_in_the_way(form: str, architecture: Architecture) -> list[Placement]:
    """The placements that a format cannot hold; empty where it can hold the architecture.

    `merged` refuses placements only if none of them merges: with `--partial` the unmerged part of a hybrid goes into a
    folder of its own.
    """
    placements = list(architecture.placements)
    if form == "merged":
        return [] if len(unmerged(architecture)) < len(placements) else placements
    if form == "peft":
        tuner = peft_tuner(architecture)
        return [
            p
            for p in placements
            if _scales_twice(p) or ((name := _kept_name(p)) != tuner and tuner not in _BESIDE.get(name, ()))
        ]
    if form == "adapters":
        return [p for p in placements if p.method not in _ADAPTERS] + _second_bottlenecks(placements)
    return []


def deploys(target: str, architecture: Architecture) -> bool:
    """Whether an architecture can be used without peftsearch.

    Args:
        target: `peft` for an adapter of HF peft, `merged` for a plain checkpoint, or `any`.
        architecture: The architecture; the head alone is part of a plain checkpoint, and no adapter.
    """
    if target == "merged":
        return merges_wholly(architecture)
    if target == "peft":
        return bool(architecture.placements) and not placements_in_the_way("peft", architecture)
    return True


def takes_part(target: str, name: str) -> bool:
    """Whether a method can be part of an architecture that deploys to a target, alone or beside others."""
    if target == "merged":
        return get_method(name).merges
    kept = _kept_method(name)
    return target == "any" or kept in _TUNERS or kept in _BESIDE


def merges_wholly(architecture: Architecture) -> bool:
    """Whether nothing is left beside the weights of a plain checkpoint."""
    return not unmerged(architecture)


def unmerged(architecture: Architecture) -> list[Placement]:
    """The placements that stay beside the weights of a plain checkpoint."""
    return [p for p in architecture.placements if not get_method(p.method).merges]


def exports_of(architecture: Architecture) -> tuple[str, ...]:
    """Targets that an architecture can be exported to wholly: `peft`, `merged`; empty if only peftsearch reads it."""
    return tuple(target for target in ("peft", "merged") if deploys(target, architecture))


def peft_tuner(architecture: Architecture) -> str | None:
    """The method of an HF peft adapter for an architecture: of those with a configuration, the one on most blocks.

    LayerNorm tuning can be added to most other tuners, so it is chosen only if it is alone.
    """
    counts = Counter(name for p in architecture.placements if (name := _kept_name(p)) in _TUNERS)
    if len(counts) > 1:
        del counts["layernorm"]
    return max(counts, key=lambda name: (counts[name], -_TUNERS.index(name)), default=None)


def exports_of_method(name: str) -> tuple[str, ...]:
    """Targets that a method alone can be exported to wholly: `peft`, `merged`."""
    targets = {"peft": _kept_method(name) in _TUNERS, "merged": get_method(name).merges}
    return tuple(target for target, can in targets.items() if can)


def _kept_name(placement: Placement) -> str:
    """The method of the table that the placement's becomes in an export."""
    return _kept_method(placement.method)


def _kept_method(name: str) -> str:
    """The method of the table that another becomes in an export.

    `peftsearch.reduce` turns some methods into smaller ones; a shared A or B is written once for every block.
    """
    method = get_method(name)
    name = base_name(method.becomes if isinstance(method, Reducible) else method.name)
    return "lora" if name in ("lora_shared_a", "lora_shared_b") else name


def _scales_twice(placement: Placement) -> bool:
    """Whether IA3 scales both the input and the output of one map; HF peft has one vector per map."""
    method = get_method(placement.method)
    return isinstance(method, IA3) and {"ffn_in", "ffn_out"} <= set(method.targets)


def _second_bottlenecks(placements: list[Placement]) -> list[Placement]:
    """Placements after the first bottleneck of a block, since all of them act on its feed-forward network."""
    taken: set[tuple[str, int]] = set()
    second = []
    for p in placements:
        if p.method.startswith("adapter"):
            if (p.stack, p.block) in taken:
                second.append(p)
            taken.add((p.stack, p.block))
    return second


def require_format(form: str, architecture: Architecture, *, partial: bool = False) -> None:
    """Refuse a format that cannot hold an architecture.

    Args:
        form: The format.
        architecture: The architecture to export.
        partial: Whether a merged export may leave methods beside the model.

    Raises:
        CheckpointError: The format cannot; names the blocks and methods that prevent it, and the formats that can.
    """
    if form in ("peft", "adapters") and not architecture.placements:
        raise CheckpointError(f"{FORMATS[form]} cannot hold the head alone; formats that can: merged, peftsearch")
    left = placements_in_the_way(form, architecture)
    if form == "merged" and not left and not partial and (rest := unmerged(architecture)):
        raise CheckpointError(
            f"{FORMATS[form]} cannot hold {name_methods(rest)} on {name_blocks(rest)}, which do not merge; --format "
            "peftsearch keeps the design whole, --partial writes the merged part and the rest beside it, and a run "
            "with --deploy merged searches designs that merge"
        )
    if left:
        tuner = peft_tuner(architecture) if form == "peft" else None
        reasons = {
            p: "one map has one IA3 vector there, here ffn_out has two"
            if form == "peft" and _scales_twice(p)
            else _reason(form, _kept_name(p) if form == "peft" else p.method, tuner)
            for p in left
        }
        raise refusal(form, architecture, reasons)


def refusal(form: str, architecture: Architecture, reasons: Mapping[Placement, str]) -> CheckpointError:
    """Make the error that names the offending blocks and methods, and the formats that can hold the architecture.

    Args:
        form: The format that cannot hold it.
        architecture: The architecture to export.
        reasons: The reason for each offending placement.
    """
    kinds = dict.fromkeys((p.method, reason) for p, reason in reasons.items())
    told = "; ".join(
        f"{method} on {name_blocks([p for p in reasons if (p.method, reasons[p]) == (method, reason)])} ({reason})"
        for method, reason in sorted(kinds, key=lambda kind: rank_of(kind[0]))
    )
    others = [f for f in FORMATS if f not in (form, "merged") and not placements_in_the_way(f, architecture)]
    if form != "merged" and placements_in_the_way("merged", architecture) == []:
        others.append("merged" if merges_wholly(architecture) else "merged --partial")
    others.sort(key=lambda f: list(FORMATS).index(f.split()[0]))
    return CheckpointError(f"{FORMATS[form]} cannot hold {told}; formats that can: {', '.join(map(_note, others))}")


def _reason(form: str, method: str, tuner: str | None) -> str:
    if form == "merged":
        return "it does not merge"
    if form == "adapters" and method in _ADAPTERS:
        return "it allows one bottleneck per place"
    if method in _TUNERS and tuner is not None:
        return f"one adapter holds one method, here {tuner}"
    return _REASONS.get((form, method), "this export does not write it")


def _note(form: str) -> str:
    return {"adapters": "adapters (the configuration)"}.get(form, form)


def name_methods(placements: Sequence[Placement]) -> str:
    """The methods of placements, each once."""
    return ", ".join(dict.fromkeys(p.method for p in placements))


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
