"""Modules parallel to a feed-forward network: they read its input and add to its output."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import nn

from peftsearch.backbone.anatomy import FeedForward
from peftsearch.methods.layers.attachment import Attachment
from peftsearch.methods.layers.projections import add_delta, hook_outputs


class Tap(nn.Module):
    """Hold a network's input from the hook on its first map to the hook on its last.

    Both hooks run in every forward, including the recomputation by gradient checkpointing, and `take` releases the
    input: nothing is kept from one forward to the next.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seen: torch.Tensor | None = None
        """Input of the network `(..., d)`; set only while the network is running."""

    def see(self, module: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        """Keep the input of the first map `(..., d)`; its output is returned unchanged."""
        self.seen = args[0]
        return output

    def take(self) -> torch.Tensor:
        """Return the input `(..., d)` and release it."""
        assert self.seen is not None, "the network's first map has not run"
        x, self.seen = self.seen, None
        return x

    def forget(self) -> None:
        """Release the input that a forward left behind by failing between the two hooks."""
        self.seen = None


class Beside(nn.Module, ABC):
    """A delta around one feed-forward network, with hooks on its first and last map; a subclass computes the delta."""

    def __init__(self) -> None:
        super().__init__()
        self.tap = Tap()

    @abstractmethod
    def delta(self, x: torch.Tensor) -> torch.Tensor:
        """Compute the delta of the output `(..., d)` from the network's input x `(..., d)`, in any dtype."""

    def forward(self, module: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        """Add the delta to the network's output.

        Args:
            module: The output projection.
            args: Its input; not used.
            output: Its output `(..., d)`.

        Returns:
            `(..., d)`
        """
        return add_delta(output, self.delta(self.tap.take()), None)


def attach_beside(model: nn.Module, ffn: FeedForward, module: Beside) -> Attachment:
    """Hook a module on the first map of a feed-forward network and on its last."""
    hooks = {"in": (ffn.inputs[0].path, module.tap.see), "out": (ffn.output.path, module.forward)}
    return Attachment(module=module, undo=[*hook_outputs(model, hooks), module.tap.forget])
