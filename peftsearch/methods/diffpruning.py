"""DiffPruning: learning a sparse difference of the weights (arXiv 2012.07463).

Sec. 3: theta = theta_0 + z * w, where a difference w is trained for every weight and z in [0, 1] follows the hard
concrete distribution (arXiv 1712.01312) with parameters log alpha, so that the expected number of nonzero differences
can be held down by a penalty (eq. 3 and 4); after training the difference is cut to a fixed share by magnitude (sec.
3.3), here half a percent, the paper's. Two parameters are trained for each weight, so the budget has to be large: the
trained share is 200 % of what is tuned, the changed share 0.5 %. The size is the index of a nested subset of a block's
maps: `query`, `query+value`, `attention` (its four maps), `all`. w starts at 0, so the output is unchanged at init;
log alpha at 1, where z is 0.69 (the authors' code starts it at 5, for trainings of many epochs). It merges.

In evaluation z is its mean and the difference is cut already: what is scored is what is kept. After training a
placement becomes one of `fishmask`, which holds the weights that are left. In a training loop of one's own
`peftsearch.extra_loss` adds the penalty.

Left out: the structured variant, which groups the gates of a matrix.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from peftsearch.backbone.anatomy import Block, Projection
from peftsearch.methods.fishmask import FishMask
from peftsearch.methods.method import Attachment
from peftsearch.methods.probing import ProbedMap
from peftsearch.methods.projections import hook_outputs, name_projections

KEPT = 0.005
"""Share of the tuned weights whose difference is kept."""
PENALTY = 1.25e-7
"""Weight of the expected number of nonzero differences in the loss (the authors' code)."""
LOG_ALPHA = 1.0
"""Where the gates' parameters start."""
STRETCH = -1.5, 1.5
"""The interval (l, r) that the concrete distribution is stretched to (the authors' code)."""


class Difference(ProbedMap):
    """w and log alpha of one map; the cut is over the whole block."""

    def __init__(self, projection: Projection, owner: Differences) -> None:
        super().__init__(projection)
        self.w = nn.Parameter(torch.zeros(self.shape))
        self.log_alpha = nn.Parameter(torch.full(self.shape, LOG_ALPHA))
        self.__dict__["owner"] = owner  # past nn.Module's bookkeeping: the owner holds this module already

    def gates(self) -> torch.Tensor:
        """Z `(d_out, d_in)`: drawn in training, its mean in evaluation (2012.07463, eq. 3)."""
        logits: torch.Tensor = self.log_alpha
        if self.training:
            noise = torch.rand_like(logits).clamp(1e-6, 1 - 1e-6)
            logits = logits + noise.log() - (-noise).log1p()
        low, high = STRETCH
        return (torch.sigmoid(logits) * (high - low) + low).clamp(0, 1)

    def delta(self) -> torch.Tensor:
        """The difference `(d_out, d_in)`; in evaluation zero but for what is kept."""
        if self.training:
            return self.gates() * self.w
        owner: Differences = self.__dict__["owner"]
        difference = self.gates() * self.w
        return torch.where(difference.abs() >= owner.least(), difference, torch.zeros_like(difference))


class Differences(nn.Module):
    """The differences of a block."""

    def __init__(self, projections: dict[str, Projection], n_kept: int) -> None:
        super().__init__()
        self.maps = nn.ModuleDict({name: Difference(p, self) for name, p in projections.items()})
        self.n_kept = n_kept
        self._least: tuple[tuple[int, ...], torch.Tensor] | None = None

    def differences(self) -> torch.Tensor:
        """All differences of the block laid end to end."""
        return torch.cat([(each.gates() * each.w).flatten() for each in self._own()])

    @torch.no_grad()
    def least(self) -> torch.Tensor:
        """The smallest magnitude that is kept, `()`; worked out anew where a parameter has changed since."""
        version = tuple(p._version for p in self.parameters())
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


@dataclass(frozen=True, kw_only=True, slots=True)
class DiffPruning:
    """A sparse difference on a nested subset of a block's maps."""

    name: str = "diffpruning"
    paper: str = "2012.07463, sec. 3"
    places: str = "weights of the projections"
    lr_scale: float = 0.1
    knob: str = "subset"
    merges: bool = True
    changes: str = "half a percent of the weights"
    exact_at_init: bool = True
    becomes: str = "fishmask"

    def subsets(self, block: Block) -> list[tuple[str, dict[str, Projection]]]:
        """The nested subsets of a block's maps by their names."""
        maps = name_projections(block)
        inside = {name: p for name, p in maps.items() if name in ("query", "key", "value", "output")}
        two = {name: maps[name] for name in ("query", "value")}
        return [("query", {"query": maps["query"]}), ("query+value", two), ("attention", inside), ("all", maps)]

    def obstacle(self, block: Block) -> str | None:
        """None: every block has weights."""
        return None

    def max_size(self, block: Block) -> int:
        """How many subsets there are."""
        return 4

    def n_weights(self, block: Block, size: int) -> int:
        """Weights of a subset."""
        return sum(p.d_in * p.d_out for p in self.subsets(block)[size - 1][1].values())

    def count(self, block: Block, size: int) -> int:
        """A difference and a gate for each weight."""
        return 2 * self.n_weights(block, size)

    def changed(self, block: Block, size: int) -> int:
        """Half a percent of the weights, as whole sizes of `fishmask`."""
        fish = FishMask()
        return fish.count(block, self.reduced_size(block, size))

    def reduced_size(self, block: Block, size: int) -> int:
        """The size of the `fishmask` that it becomes."""
        return max(1, int(KEPT * self.n_weights(block, size)) // FishMask().unit(block))

    def label(self, block: Block, size: int) -> str:
        """The name of the subset."""
        return self.subsets(block)[size - 1][0]

    def attach(self, model: nn.Module, block: Block, size: int) -> Attachment:
        """Hook a difference on every map of the subset."""
        maps = self.subsets(block)[size - 1][1]
        module = Differences(maps, self.changed(block, size))
        hooks = {name: (maps[name].path, each.forward) for name, each in module.maps.items()}
        return Attachment(module=module, undo=hook_outputs(model, hooks))

    def reduced(self, module: nn.Module, block: Block) -> dict[str, torch.Tensor]:
        """Values and positions of what is kept, as `fishmask` holds them."""
        assert isinstance(module, Differences), "the module is of this method"
        own, starts, n = dict(module.maps.items()), {}, 0
        for name, p in name_projections(block).items():
            starts[name] = n
            n += p.d_in * p.d_out
        training, flat = module.training, torch.zeros(n)
        module.eval()
        for name, each in own.items():
            assert isinstance(each, Difference), "its maps are differences"
            delta = each.delta().detach().flatten().cpu()
            flat[starts[name] : starts[name] + len(delta)] = delta
        module.train(training)
        index = flat.abs().topk(module.n_kept).indices.sort().values
        return {"values": flat[index], "index": index}
