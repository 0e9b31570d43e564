"""FishMask: training the weights with the most Fisher information (arXiv 2111.09839).

Sec. 3.1: the diagonal of the empirical Fisher information, the mean of the squared gradients of the log-likelihood,
scores each weight before training; the k highest are trained, the mask stays fixed. Here every block chooses its own k
of the weights of all its linear maps (the paper chooses over the whole model), each trained as a delta on the weight,
zero at init: the output is unchanged. The gradients are those of whole batches and of the true labels (the paper's are
of single examples). The size is k in units of a 8192nd of the block's weights. It merges: W + delta.

Trained and changed are the same k weights; their positions are kept beside them. In training the delta is a dense
product: it costs as much as the map itself, and nothing once merged.

Left out: biases, norms and embeddings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from peftsearch.backbone.anatomy import Block, Projection
from peftsearch.methods.method import Attachment
from peftsearch.methods.probing import Choice, ProbedMap
from peftsearch.methods.projections import hook_outputs, name_projections

UNITS = 8192
"""Sizes that a block's weights are divided into."""


class MaskedMap(ProbedMap):
    """The chosen weights of one map; values and positions are its block's."""

    def __init__(self, projection: Projection, owner: ChosenWeights, start: int) -> None:
        super().__init__(projection)
        self.start = start
        """Position of the map's first weight when all maps are laid end to end."""
        self.__dict__["owner"] = owner  # past nn.Module's bookkeeping: the owner holds this module already

    def delta(self) -> torch.Tensor:
        """Zero but for the chosen weights, `(d_out, d_in)`."""
        owner: ChosenWeights = self.__dict__["owner"]
        n = self.shape[0] * self.shape[1]
        inside = (owner.index >= self.start) & (owner.index < self.start + n)  # a mask: its size is no question
        places = torch.where(inside, owner.index - self.start, 0)
        flat = owner.values.new_zeros(n).scatter_add(0, places, torch.where(inside, owner.values, 0))
        return flat.view(self.shape)

    def forward(self, module: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        """As `ProbedMap`; training before anything is chosen is an error."""
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
        starts = [0]
        for p in projections.values():
            starts.append(starts[-1] + p.d_in * p.d_out)
        self.choice = Choice("fishmask")
        self.maps = nn.ModuleDict(
            {name: MaskedMap(p, self, start) for (name, p), start in zip(projections.items(), starts, strict=False)}
        )
        self.scores: torch.Tensor | None = None
        """Sum of squared gradients of all weights, while gradients are looked at."""

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
        self.index.copy_(self.scores.topk(len(self.values)).indices.sort().values)

    def drop(self) -> None:
        """Let go of scores and probes."""
        self.scores = None
        for each in self._masked():
            each.probe = None

    def _masked(self) -> list[MaskedMap]:
        return [each for each in self.maps.values() if isinstance(each, MaskedMap)]


@dataclass(frozen=True, kw_only=True, slots=True)
class FishMask:
    """Deltas on the weights of a block that score highest."""

    name: str = "fishmask"
    paper: str = "2111.09839, sec. 3.1"
    places: str = "single weights of all projections"
    lr_scale: float = 0.3
    knob: str = "weights"
    merges: bool = True
    changes: str = "the chosen weights"
    exact_at_init: bool = True

    def obstacle(self, block: Block) -> str | None:
        """None: every block has weights."""
        return None

    def unit(self, block: Block) -> int:
        """Weights of one size."""
        return max(1, sum(p.d_in * p.d_out for p in block.projections) // UNITS)

    def max_size(self, block: Block) -> int:
        """All weights of the block's maps."""
        return sum(p.d_in * p.d_out for p in block.projections) // self.unit(block)

    def count(self, block: Block, size: int) -> int:
        """The k weights."""
        return size * self.unit(block)

    def changed(self, block: Block, size: int) -> int:
        """The k weights that it trains."""
        return self.count(block, size)

    def label(self, block: Block, size: int) -> str:
        """The number of weights: `k=432`."""
        return f"k={self.count(block, size)}"

    def attach(self, model: nn.Module, block: Block, size: int) -> Attachment:
        """Hook a delta on every map; `prime` chooses what it holds."""
        projections = name_projections(block)
        module = ChosenWeights(projections, self.count(block, size))
        hooks = {name: (projections[name].path, each.forward) for name, each in module.maps.items()}
        return Attachment(module=module, undo=hook_outputs(model, hooks))
