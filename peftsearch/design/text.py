"""Designs and architectures as text: one line for lists, a table of blocks by methods for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from peftsearch.design.architecture import Architecture, Placement
from peftsearch.design.design import Design
from peftsearch.design.space import ALLOCATIONS, DesignSpace, allocation_weights
from peftsearch.methods import get_method, rank_of

if TYPE_CHECKING:
    from peftsearch.backbone.anatomy import Backbone

BlockKey = tuple[str, int]
_BARS = " ▁▂▃▄▅▆▇█"


def design_line(design: Design) -> str:
    """One line: `spindle, uniform: G1 adapter+lora | G2 - | G3 bitfit | G4 lora`; fixed sizes as `adapter 8`."""
    if not design.tunable:
        return "no method"
    rate = "" if design.learning_rate is None else f", lr {design.learning_rate:g}"
    tail = rate if design.budget_share == 1 else f"{rate}, {100 * design.budget_share:g}% of the budget"
    sizes = {name: f" {size}" for name, size in design.sizes}
    named = [" + ".join(m + sizes[m] for m in group if m in sizes) or "+".join(group) for group in design.methods]
    if len(set(design.methods)) == 1 and len(set(design.allocation)) == 1:
        return f"{named[0]} on all blocks{tail}"
    tuned = {named[i] for i in design.tunable}
    if sizes and len(tuned) == 1:  # every tuned group is the same: list the groups, and their methods once
        groups = " ".join(f"G{i + 1}" for i in design.tunable)
        return f"{tuned.pop()} in {groups} of {len(design.methods)} groups{tail}"
    groups = " | ".join(f"G{i + 1} {name or '-'}" for i, name in enumerate(named))
    return f"{design.grouping}, {allocation_name(design.allocation)}: {groups}{tail}"


def allocation_name(weights: tuple[float, ...]) -> str:
    """Name of the allocation's pattern, or the weights as a ratio where there is none."""
    for name in ("uniform", *ALLOCATIONS):
        if allocation_weights(name, len(weights)) == weights:
            return name
    return ":".join(f"{w:g}" for w in weights)


def picture(
    architecture: Architecture,
    blocks: Sequence[BlockKey],
    labels: Mapping[tuple[str, int, str], str],
    n_changed: int | None,
) -> Table:
    """Draw blocks (columns, input side left) by methods (rows): each placement's size under a bar of its parameters.

    Args:
        architecture: The architecture to draw.
        blocks: All blocks of the backbone as (stack, index), input side first.
        labels: Readable size of each (stack, block, method); a missing one shows the plain size.
        n_changed: Parameters in which the result differs from the backbone, for the title; None leaves it out.
    """
    most = max((p.n_params for p in architecture.placements), default=1)
    changed = "" if n_changed is None else f", {n_changed:,} changed"
    table = Table(title=f"{architecture.n_params:,} trainable parameters{changed}", title_justify="left")
    table.add_column("block, input left", no_wrap=True)
    for stack, index in blocks:
        table.add_column(_block_name(stack, index, blocks), justify="center")
    table.add_column("parameters", justify="right")
    for method in _methods(architecture):
        own = {(p.stack, p.block): p for p in architecture.placements if p.method == method}
        cells = [_cell(own.get(key), most, labels) for key in blocks]
        table.add_row(method, *cells, f"{sum(p.n_params for p in own.values()):,}")
    per_block = [sum(p.n_params for p in architecture.placements if (p.stack, p.block) == key) for key in blocks]
    table.add_section()
    table.add_row("parameters", *(f"{n:,}" for n in per_block), f"{sum(per_block):,}")
    return table


def labelled(architecture: Architecture, backbone: Backbone) -> dict[str, Any]:
    """The architecture as YAML holds it, with a readable size next to each number: `r=4`, `query+ffn_in`."""
    blocks, data = {(b.stack, b.index): b for b in backbone.blocks}, architecture.to_dict()
    for entry in data["blocks"]:
        for method, facts in entry["methods"].items():
            facts["label"] = get_method(method).label(blocks[entry["stack"], entry["block"]], facts["size"])
    return data


def _cell(p: Placement | None, most: int, labels: Mapping[tuple[str, int, str], str]) -> Text:
    if p is None:
        return Text("·")
    bar = _BARS[max(1, round(p.n_params / most * (len(_BARS) - 1)))] * 3
    return Text(f"{bar}\n{labels.get((p.stack, p.block, p.method), str(p.size))}".replace("+", "+\n"))


def _block_name(stack: str, index: int, blocks: Sequence[BlockKey]) -> str:
    return str(index) if len({s for s, _ in blocks}) == 1 else f"{stack[:3]} {index}"


def _methods(architecture: Architecture) -> list[str]:
    used = {p.method for p in architecture.placements}
    return sorted(used, key=rank_of)


def space_notes(space: DesignSpace, bound: DesignSpace, wish: str = "") -> tuple[str, ...]:
    """Notes on the choices of a space that are ruled out.

    Args:
        space: The space.
        bound: The space without what the backbone and the user's wish rule out.
        wish: An option that rules out methods, too; empty without one.
    """
    before = {d.name: d.choices for d in space.dimensions}
    notes = []
    for dimension in bound.dimensions:
        dropped = [c for c in before.get(dimension.name, ()) if c not in dimension.choices]
        if dropped and dimension.name == "grouping":
            notes.append(f"groupings that coincide at this depth are left out: {', '.join(map(str, dropped))}")
    left_out = set(getattr(space, "methods", ())) - set(getattr(bound, "methods", ()))
    if left_out:
        why = "cannot act on this backbone" + (f" or are ruled out by {wish}" if wish else "")
        notes.append(f"methods that {why} are left out: {', '.join(sorted(left_out))}")
    return tuple(notes)
