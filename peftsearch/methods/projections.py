"""What the methods that act on linear maps share: stable names, slices of fused maps, hooks on outputs, and a tap."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import nn
from torch.nn import functional
from torch.utils.hooks import RemovableHandle

from peftsearch.backbone.anatomy import Block, Projection
from peftsearch.errors import MethodError, unknown_name

Hook = Callable[[nn.Module, tuple[torch.Tensor, ...], torch.Tensor], torch.Tensor]


@runtime_checkable
class Foldable(Protocol):
    """A hook module whose effect can be folded into the parameters of the module that it hangs on."""

    def fold(self, module: nn.Module) -> dict[str, torch.Tensor] | None:
        """Work out the parameters with which the module alone does what module and hook do together.

        Args:
            module: The hooked module; it is left as it is.

        Returns:
            The new values by parameter name; None where the parameters are packed and cannot be added to.
        """


def name_projections(block: Block) -> dict[str, Projection]:
    """Name a block's linear maps as parameter names hold them: `query`, `cross_query`, `ffn_in0`, `ffn_out`, ..."""
    named: dict[str, Projection] = {}
    for prefix, attention in zip(("", "cross_"), block.attentions, strict=False):
        for part in ("query", "key", "value", "output"):
            named[prefix + part] = getattr(attention, part)
    named |= {f"ffn_in{i}": projection for i, projection in enumerate(block.ffn.inputs)}
    return named | {"ffn_out": block.ffn.output}


TARGETS = ("query", "key", "value", "output", "ffn_in", "ffn_out")
"""What the maps of a block are called where a method chooses among them."""


def check_targets(method: str, targets: Iterable[str]) -> None:
    """Check the maps that a method is to act on.

    Raises:
        MethodError: One is not of `TARGETS`; the message names the nearest.
    """
    for target in targets:
        if target not in TARGETS:
            raise MethodError(f"{method}: {unknown_name('target', target, TARGETS)}")


def target_projections(block: Block, targets: Collection[str]) -> dict[str, Projection]:
    """The maps of a block that are called by some of `TARGETS`, those of its cross-attention too, by name."""
    return {
        name: p
        for name, p in name_projections(block).items()
        if name.removeprefix("cross_").rstrip("0123456789") in targets
    }


@dataclass(frozen=True, kw_only=True, slots=True)
class OnTargets:
    """What methods share that add a dense product to the weights of chosen projections of a block."""

    name: str
    targets: tuple[str, ...] = ("query", "value")
    """Which maps it acts on, out of `TARGETS`; `ffn_in` is both maps of a gated feed-forward network."""
    merges: bool = True
    changes: str = "whole matrices"
    exact_at_init: bool = True

    def __post_init__(self) -> None:
        check_targets(self.name, self.targets)

    @property
    def places(self) -> str:
        """The projections, in words."""
        return " and ".join(self.targets) + " projections"

    def projections(self, block: Block) -> dict[str, Projection]:
        """The projections it acts on in this block, by name."""
        return target_projections(block, self.targets)

    def changed(self, block: Block, size: int) -> int:
        """All of the matrices that it acts on."""
        return sum(p.d_in * p.d_out for p in self.projections(block).values())


class Margins(NamedTuple):
    """The zeros around a slice of a fused map's output, in each of its pieces."""

    front: int
    behind: int
    n_pieces: int
    """Pieces of the slice; 1 where it is whole."""


def slice_margins(start: int, width: int, d_module: int, n_pieces: int) -> Margins | None:
    """The zeros in front of and behind a slice of a fused map's output; None where the slice is the whole.

    Args:
        start: First output of the slice in each piece.
        width: Outputs in the slice.
        d_module: Outputs of the module; 0 means `width`.
        n_pieces: Equal pieces of the module's output that hold a part of the slice each.
    """
    behind = ((d_module or width) - width) // n_pieces - start
    return Margins(start, behind, n_pieces) if start or behind else None


def slice_rows(projection: Projection) -> slice | torch.Tensor:
    """The outputs of a module that belong to a projection, as an index."""
    if projection.n_pieces == 1:
        return slice(projection.start, projection.start + projection.d_out)
    pieces = torch.arange(projection.d_module).view(projection.n_pieces, -1)  # (n_pieces, d_piece)
    width = projection.d_out // projection.n_pieces
    return pieces[:, projection.start : projection.start + width].flatten()


def widen(values: torch.Tensor, margins: Margins | None) -> torch.Tensor:
    """Put values of a slice `(..., d_slice)` where they belong in the module's output `(..., d_module)`, zeros around.

    With three heads and n_pieces = 3, the key's q0 k0 v0 q1 k1 v1 q2 k2 v2 is 0 k0 0 0 k1 0 0 k2 0.
    """
    if margins is None:
        return values
    pieces = values.reshape(*values.shape[:-1], margins.n_pieces, -1)  # (..., n_pieces, d_piece)
    return functional.pad(pieces, (margins.front, margins.behind)).flatten(-2)


def add_delta(output: torch.Tensor, delta: torch.Tensor, margins: Margins | None) -> torch.Tensor:
    """Add a delta to a module's output, or to a slice of it, in the output's dtype.

    Args:
        output: `(..., d_module)`, left as it is.
        delta: `(..., d_slice)`, or anything that broadcasts to it.
        margins: See `slice_margins`.

    Returns:
        `(..., d_module)`
    """
    return output + widen(delta, margins).to(output.dtype)


def folded(parameter: torch.Tensor, delta: torch.Tensor) -> torch.Tensor | None:
    """A parameter plus a delta of its shape, in the parameter's dtype; None where it is packed (quantised)."""
    if not parameter.is_floating_point() or parameter.shape != delta.shape:
        return None
    wide = torch.promote_types(parameter.dtype, delta.dtype)
    return (parameter.to(wide) + delta.to(wide)).to(parameter.dtype)


def fold_weight(module: nn.Module, delta: torch.Tensor, margins: Margins | None) -> dict[str, torch.Tensor] | None:
    """A map's weight plus a delta `(d_out, d_in)`, in its slice alone, as `Foldable` gives it; None where packed."""
    delta = widen(delta.t(), margins).t()  # (d_module, d_in)
    # transformers' Conv1D keeps its weight as (d_in, d_module).
    weight = folded(module.get_parameter("weight"), delta if isinstance(module, nn.Linear) else delta.t())
    return None if weight is None else {"weight": weight}


def hook_outputs(model: nn.Module, hooks: Mapping[str, tuple[str, Hook]]) -> list[Callable[[], object]]:
    """Register forward hooks; all modules are looked up before the first hook goes in.

    The hooks are bound methods of modules and never closures, so that a deep copy of the model has hooks of its own.

    Args:
        model: The model that the paths start from.
        hooks: By name, the path of a module and the hook for it.

    Returns:
        What takes the hooks out again.
    """
    found = [(model.get_submodule(path), hook) for path, hook in hooks.values()]
    handles: list[RemovableHandle] = [module.register_forward_hook(hook) for module, hook in found]
    return [handle.remove for handle in handles]


class Tap(nn.Module):
    """Holds the input of a network from the hook on its first map to the hook on its last.

    Both hooks run in every forward, in a block that gradient checkpointing computes anew too, and `take` lets go of
    the input: nothing is kept from one forward to the next.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seen: torch.Tensor | None = None
        """Input of the network `(..., d)`, only while the network itself is running."""

    def see(self, module: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        """Keep the input of the first map `(..., d)`; its output passes through."""
        self.seen = args[0]
        return output

    def take(self) -> torch.Tensor:
        """The input `(..., d)`, once."""
        assert self.seen is not None, "the network's first map has not run"
        x, self.seen = self.seen, None
        return x

    def forget(self) -> None:
        """Let go of an input that a forward left behind when it ended in an error between the two hooks."""
        self.seen = None
