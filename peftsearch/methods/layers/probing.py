"""Selection of weights by gradients, taken from a temporary dense delta on a map.

The gradient of a zero delta is the gradient of the weight itself, also for a slice of a fused map and for a quantised
weight, and the backbone's own parameters need no gradients.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import nn
from torch.nn import functional

from peftsearch.backbone.anatomy import Projection
from peftsearch.backbone.private_torch import n_writes
from peftsearch.errors import MethodError
from peftsearch.methods.layers.projections import add_delta, fold_weight
from peftsearch.methods.projections import margins_of


def highest(scores: torch.Tensor, n: int) -> torch.Tensor:
    """Positions `(n,)` of the n highest scores of `(n_scores,)`, in ascending order."""
    return scores.topk(n).indices.sort().values


class Choice:
    """Host-side knowledge of whether positions are chosen; the index tensor holds -1 until then.

    Once chosen, the tensor is read again only after it was written to or moved, because a read waits for the
    accelerator. Until then it is read every time, since another process's broadcast does not change the version.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._made: tuple[int, int] | None = None

    def is_made(self, index: torch.Tensor) -> bool:
        """Whether the positions are chosen."""
        now = None if index.is_inference() else (index.data_ptr(), n_writes(index))
        if now is not None and now == self._made:
            return True
        made = bool(index[0] >= 0)
        self._made = now if made else None
        return made

    def require(self, index: torch.Tensor, module: nn.Module, probe: torch.Tensor | None) -> None:
        """Refuse to train before positions are chosen.

        Raises:
            MethodError: The module is in training mode, is not being primed, and has no positions chosen.
        """
        if module.training and probe is None and not self.is_made(index):
            raise MethodError(
                f"{self._name}: the weights to train are chosen from data: call peftsearch.prime(model, batches) first"
            )


class ProbedMap(nn.Module, ABC):
    """A delta on the weight of a linear map, or of a slice of one; `forward` is the hook on the map.

    A subclass gives the delta that applies after the choice.
    """

    def __init__(self, projection: Projection) -> None:
        super().__init__()
        self.shape = (projection.d_out, projection.d_in)
        self.margins = margins_of(projection)
        self.probe: torch.Tensor | None = None
        """Dense zero delta `(d_out, d_in)`, during priming only."""

    def watch(self, like: torch.Tensor) -> None:
        """Create the dense delta, on the device and in the dtype of another tensor."""
        self.probe = like.new_zeros(self.shape).requires_grad_()

    def take(self) -> torch.Tensor:
        """Return and clear the gradient of the dense delta `(d_out, d_in)`; zero if the loss does not depend on it."""
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
