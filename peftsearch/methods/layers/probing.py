"""Choosing by gradients: a dense delta on a map, there only while the gradients of a few batches are looked at.

The gradient of a zero delta is the gradient of the weight itself, of a slice of a fused map and of a quantised weight
too, and the backbone's own parameters stay out of it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import nn
from torch.nn import functional

from peftsearch.backbone.anatomy import Projection
from peftsearch.errors import MethodError
from peftsearch.methods.layers.projections import add_delta, fold_weight
from peftsearch.methods.projections import margins_of


def highest(scores: torch.Tensor, n: int) -> torch.Tensor:
    """Positions `(n,)` of the n highest of `(n_scores,)`, in order of position."""
    return scores.topk(n).indices.sort().values


class Choice:
    """Whether positions are chosen, as the host knows it: a tensor that holds -1 until they are.

    That they are is read again only where the tensor was written to or moved: reading waits for an accelerator. That
    they are not is read every time, since another process's broadcast writes past the version.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._made: tuple[int, int] | None = None

    def is_made(self, index: torch.Tensor) -> bool:
        """Whether the positions are chosen."""
        # `_version` is private: torch has no public count of the writes to a tensor.
        now = None if index.is_inference() else (index.data_ptr(), index._version)
        if now is not None and now == self._made:
            return True
        made = bool(index[0] >= 0)
        self._made = now if made else None
        return made

    def require(self, index: torch.Tensor, module: nn.Module, probe: torch.Tensor | None) -> None:
        """Refuse to train what has not been chosen yet.

        Raises:
            MethodError: The module is in training mode, is not being primed, and nothing is chosen.
        """
        if module.training and probe is None and not self.is_made(index):
            raise MethodError(
                f"{self._name}: chooses what it trains by data: call peftsearch.prime(model, batches) first"
            )


class ProbedMap(nn.Module, ABC):
    """One linear map, or a slice of one, whose weight takes a delta; its `forward` is the hook on the map.

    A subclass says what the delta is once it is chosen.
    """

    def __init__(self, projection: Projection) -> None:
        super().__init__()
        self.shape = (projection.d_out, projection.d_in)
        self.margins = margins_of(projection)
        self.probe: torch.Tensor | None = None
        """Dense delta `(d_out, d_in)`, zero, while gradients are looked at."""

    def watch(self, like: torch.Tensor) -> None:
        """Take a dense delta, on the device and in the dtype of another tensor."""
        self.probe = like.new_zeros(self.shape).requires_grad_()

    def take(self) -> torch.Tensor:
        """The gradient of the dense delta `(d_out, d_in)` since the last time; zero where the loss does not reach."""
        assert self.probe is not None, "watch first"
        gradient = self.probe.new_zeros(self.shape) if self.probe.grad is None else self.probe.grad
        self.probe.grad = None
        return gradient

    @abstractmethod
    def delta(self) -> torch.Tensor:
        """The chosen delta `(d_out, d_in)`."""

    def forward(self, module: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        """Add the delta's product with the input.

        Args:
            module: The map's module.
            args: Its input `(..., d_in)`.
            output: Its output `(..., d_module)`.

        Returns:
            `(..., d_module)`
        """
        delta = self.delta() if self.probe is None else self.probe
        return add_delta(output, functional.linear(args[0].to(delta.dtype), delta), self.margins)

    def fold(self, module: nn.Module) -> dict[str, torch.Tensor] | None:
        """The weight plus the delta, in the slice of a fused map alone; see `Foldable`."""
        return fold_weight(module, self.delta(), self.margins)
