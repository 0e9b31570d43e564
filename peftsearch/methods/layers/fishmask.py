"""The layers of FishMask; `peftsearch.methods.fishmask` names the paper."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from peftsearch.backbone.anatomy import Projection
from peftsearch.methods.layers.attachment import Attachment
from peftsearch.methods.layers.probing import Choice, ProbedMap, highest
from peftsearch.methods.layers.projections import hook_forwards
from peftsearch.methods.projections import lay_out


class MaskedMap(ProbedMap):
    """The chosen weights of one map; `ChosenWeights` of the block holds their values and positions."""

    def __init__(self, projection: Projection, owner: ChosenWeights, start: int) -> None:
        super().__init__(projection)
        self.start = start
        """Position of the map's first weight when all maps are laid end to end."""
        self.__dict__["owner"] = owner  # bypasses nn.Module's registration: the owner already holds this module

    def delta(self) -> torch.Tensor:
        """Delta `(d_out, d_in)`, nonzero only at the chosen weights."""
        owner: ChosenWeights = self.__dict__["owner"]
        n = self.shape[0] * self.shape[1]
        inside = (owner.index >= self.start) & (owner.index < self.start + n)  # a mask, as selecting would sync
        places = torch.where(inside, owner.index - self.start, 0)
        flat = owner.values.new_zeros(n).scatter_add(0, places, torch.where(inside, owner.values, 0))
        return flat.view(self.shape)

    def forward(self, module: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        """Add the delta's product with the input, as `ProbedMap`; refuse to train before weights are chosen."""
        owner: ChosenWeights = self.__dict__["owner"]
        owner.choice.require(owner.index, self, self.probe)
        return super().forward(module, args, output)


class ChosenWeights(nn.Module):
    """The k trained weights of a block."""

    index: torch.Tensor

    def __init__(self, projections: Mapping[str, Projection], k: int) -> None:
        super().__init__()
        self.values = nn.Parameter(torch.zeros(k))
        self.register_buffer("index", torch.full((k,), -1))  # -1: not chosen yet
        self.choice = Choice("fishmask")
        starts = lay_out(projections)
        self.maps = nn.ModuleDict({name: MaskedMap(p, self, starts[name]) for name, p in projections.items()})
        self.scores: torch.Tensor | None = None
        """Sum of squared gradients of all weights, during priming only."""

    def watch(self) -> None:
        """Let every weight take gradients."""
        self.scores = None
        for each in self._masked():
            each.watch(self.values)

    def record(self) -> None:
        """Add the squared gradients of one batch (2111.09839, eq. 4)."""
        squares = torch.cat([each.take().square().flatten() for each in self._masked()])
        self.scores = squares if self.scores is None else self.scores + squares

    def choose(self) -> None:
        """Keep the k weights with the highest scores, in order of position."""
        assert self.scores is not None, "no batch was recorded"
        self.index.copy_(highest(self.scores, len(self.values)))

    def drop(self) -> None:
        """Free the scores and the probes."""
        self.scores = None
        for each in self._masked():
            each.probe = None

    def _masked(self) -> list[MaskedMap]:
        return [each for each in self.maps.values() if isinstance(each, MaskedMap)]


def attach(model: nn.Module, projections: Mapping[str, Projection], k: int) -> Attachment:
    """Hook a delta on every map; `prime` chooses the k weights."""
    module = ChosenWeights(projections, k)
    return Attachment(module=module, undo=hook_forwards(model, projections, module.maps))
