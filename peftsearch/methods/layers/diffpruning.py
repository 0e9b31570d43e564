"""The layers of DiffPruning; `peftsearch.methods.diffpruning` names the papers and the equations."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import nn

from peftsearch.backbone.anatomy import Projection
from peftsearch.backbone.private_torch import n_writes
from peftsearch.methods.layers.attachment import Attachment
from peftsearch.methods.layers.probing import ProbedMap, highest
from peftsearch.methods.layers.projections import hook_forwards
from peftsearch.methods.projections import count_weights, lay_out

PENALTY = 1.25e-7
"""Weight of the expected number of nonzero differences in the loss (the authors' code)."""
LOG_ALPHA = 1.0
"""Initial value of the gates' parameters."""
STRETCH = -1.5, 1.5
"""The interval (l, r) that the concrete distribution is stretched to (the authors' code)."""


class Difference(ProbedMap):
    """w and log alpha of one map; pruning is over the whole block."""

    def __init__(self, projection: Projection, owner: Differences) -> None:
        super().__init__(projection)
        self.w = nn.Parameter(torch.zeros(self.shape))
        self.log_alpha = nn.Parameter(torch.full(self.shape, LOG_ALPHA))
        self.__dict__["owner"] = owner  # bypasses nn.Module's registration: the owner already holds this module

    def gates(self) -> torch.Tensor:
        """The gates z `(d_out, d_in)`: random draws in training, their mean in evaluation (2012.07463, eq. 3)."""
        logits: torch.Tensor = self.log_alpha
        if self.training:
            noise = torch.rand_like(logits).clamp(1e-6, 1 - 1e-6)
            logits = logits + noise.log() - (-noise).log1p()
        low, high = STRETCH
        return (torch.sigmoid(logits) * (high - low) + low).clamp(0, 1)

    def delta(self) -> torch.Tensor:
        """The difference `(d_out, d_in)`; in evaluation entries that are pruned are zero."""
        if self.training:
            return self.gates() * self.w
        owner: Differences = self.__dict__["owner"]
        difference = self.gates() * self.w
        return torch.where(difference.abs() >= owner.least(), difference, torch.zeros_like(difference))


class Differences(nn.Module):
    """The differences of a block."""

    def __init__(self, projections: Mapping[str, Projection], n_kept: int) -> None:
        super().__init__()
        self.maps = nn.ModuleDict({name: Difference(p, self) for name, p in projections.items()})
        self.n_kept = n_kept
        self._least: tuple[tuple[int, ...], torch.Tensor] | None = None

    def differences(self) -> torch.Tensor:
        """All differences of the block laid end to end."""
        return torch.cat([(each.gates() * each.w).flatten() for each in self._own()])

    @torch.no_grad()
    def least(self) -> torch.Tensor:
        """The smallest magnitude that is kept, `()`; recomputed only after a parameter has changed."""
        # Without the count of writes every map would search for the threshold in every forward.
        version = tuple(n_writes(p) for p in self.parameters())
        if self._least is None or self._least[0] != version:
            self._least = version, self.differences().abs().topk(self.n_kept).values[-1]
        return self._least[1]

    def penalty(self) -> torch.Tensor:
        """The expected number of nonzero differences times its weight, `()` (2012.07463, eq. 4)."""
        low, high = STRETCH
        shift = math.log(-low / high)
        return PENALTY * sum((torch.sigmoid(each.log_alpha - shift).sum() for each in self._own()), torch.zeros(()))

    def _own(self) -> list[Difference]:
        return [each for each in self.maps.values() if isinstance(each, Difference)]


def attach(model: nn.Module, projections: Mapping[str, Projection], n_kept: int) -> Attachment:
    """Hook a difference on every map."""
    module = Differences(projections, n_kept)
    return Attachment(module=module, undo=hook_forwards(model, projections, module.maps))


def reduced(module: nn.Module, projections: Mapping[str, Projection]) -> dict[str, torch.Tensor]:
    """Values and positions of the weights that are kept, as `fishmask` holds them.

    Args:
        module: The module that `attach` made.
        projections: All maps of the block, those without a difference too.
    """
    assert isinstance(module, Differences), "the module is of this method"
    starts, training = lay_out(projections), module.training
    flat = torch.zeros(count_weights(projections.values()))
    module.eval()
    for name, each in module.maps.items():
        assert isinstance(each, Difference), "its maps are differences"
        delta = each.delta().detach().flatten().cpu()
        flat[starts[name] : starts[name] + len(delta)] = delta
    module.train(training)
    index = highest(flat.abs(), module.n_kept)
    return {"values": flat[index], "index": index}
