"""DiffPruning: learning a sparse difference of the weights (arXiv 2012.07463).

Sec. 3: theta = theta_0 + z * w, where a difference w is trained for every weight and z in [0, 1] follows the hard
concrete distribution (arXiv 1712.01312) with parameters log alpha, so that a penalty can limit the expected number of
nonzero differences (eq. 3 and 4); after training the differences are pruned by magnitude to a fixed share (sec. 3.3),
here the paper's 0.5 %. Two parameters are trained for each weight, so the budget has to be large: the trained
parameters are 200 % of the tuned weights, the changed ones 0.5 %. The size is the index of a nested subset of a block's
maps: `query`, `query+value`, `attention` (its four maps), `all`. w starts at 0, so the output is unchanged at init;
log alpha starts at 1, where z is 0.69 (5 in the authors' code, for trainings of many epochs). It merges.

In evaluation z is its mean and the differences are already pruned, so the score is that of the weights that are kept.
After training a placement becomes one of `fishmask`, which holds the remaining weights. In a user's own training loop
`peftsearch.extra_loss` adds the penalty.

Left out: the structured variant, which groups the gates of a matrix.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from peftsearch.backbone.anatomy import Block, Projection
from peftsearch.methods.fishmask import FishMask
from peftsearch.methods.projections import count_weights, name_projections

if TYPE_CHECKING:
    import torch
    from torch import nn

    from peftsearch.methods.layers.attachment import Attachment

KEPT = 0.005
"""Share of the tuned weights whose difference is kept."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DiffPruning:
    """A sparse difference on a nested subset of a block's maps."""

    name: str = "diffpruning"
    paper: str = "2012.07463, sec. 3"
    places: str = "weights of the projections"
    lr_scale: float = 0.14
    lr_follows_size: bool = True
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
        """Number of subsets."""
        return 4

    def n_weights(self, block: Block, size: int) -> int:
        """Weights of a subset."""
        return count_weights(self.subsets(block)[size - 1][1].values())

    def count(self, block: Block, size: int) -> int:
        """A difference and a gate for each weight."""
        return 2 * self.n_weights(block, size)

    def changed(self, block: Block, size: int) -> int:
        """Half a percent of the weights, as whole sizes of `fishmask`."""
        return FishMask().count(block, self.reduced_size(block, size))

    def reduced_size(self, block: Block, size: int) -> int:
        """Size of the `fishmask` placement that it becomes."""
        return max(1, int(KEPT * self.n_weights(block, size)) // FishMask().unit(block))

    def label(self, block: Block, size: int) -> str:
        """The name of the subset."""
        return self.subsets(block)[size - 1][0]

    def attach(self, model: nn.Module, block: Block, size: int) -> Attachment:
        """Hook a difference on every map of the subset."""
        from peftsearch.methods.layers.diffpruning import attach

        return attach(model, self.subsets(block)[size - 1][1], self.changed(block, size))

    def reduced(self, module: nn.Module, block: Block) -> dict[str, torch.Tensor]:
        """Values and positions of the weights that are kept, as `fishmask` holds them."""
        from peftsearch.methods.layers.diffpruning import reduced

        return reduced(module, name_projections(block))
