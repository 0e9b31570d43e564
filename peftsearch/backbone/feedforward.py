"""Find the feed-forward maps of a block by their widths."""

from __future__ import annotations

from torch import nn

from peftsearch.backbone.anatomy import FeedForward, Projection
from peftsearch.backbone.maps import is_linear, join, read_projection, unreadable


def find_ffn(model: nn.Module, block: str, hidden: int, taken: set[str]) -> FeedForward:
    """Find the feed-forward network: maps from the hidden width to an inner one, and one map back.

    Args:
        model: The model that the paths start from.
        block: Path of the block.
        hidden: Hidden width.
        taken: Paths of the linear maps that belong to attention.

    Raises:
        BackboneError: The remaining maps do not form exactly one feed-forward network.
    """
    paths = [join(block, path) for path, child in model.get_submodule(block).named_modules() if is_linear(child)]
    maps = [read_projection(model, path) for path in paths if path not in taken]
    # If inner and hidden width are equal, the shapes do not tell; the map back is registered last in every family.
    back = [m for m in maps if m.d_out == hidden and m.d_in != hidden] or maps[-1:]
    inputs = [m for m in maps if m is not back[0]]
    if len(back) == 1 and all(m.d_in == hidden for m in inputs):
        if len(inputs) == 1 and inputs[0].d_out == 2 * back[0].d_in:
            return FeedForward(inputs=_halves(inputs[0]), output=back[0])
        if len(inputs) in (1, 2) and all(m.d_out == back[0].d_in for m in inputs):
            return FeedForward(inputs=tuple(sorted(inputs, key=_is_not_gate)), output=back[0])
    found = ", ".join(f"{m.path.removeprefix(block + '.')} {m.d_in}->{m.d_out}" for m in maps)
    raise unreadable(model, f"one feed-forward network in {block}: one or two maps {hidden}->inner, one back", found)


def _halves(fused: Projection) -> tuple[Projection, Projection]:
    """Gate and up of a fused map; the first half is the activated one (Phi-3, ModernBERT)."""
    width = fused.d_out // 2
    first, second = (
        Projection(path=fused.path, d_in=fused.d_in, d_out=width, start=s, d_module=fused.d_out, bias=fused.bias)
        for s in (0, width)
    )
    return first, second


def _is_not_gate(projection: Projection) -> bool:
    return "gate" not in projection.path.rpartition(".")[2].lower()  # ties keep the order of registration
