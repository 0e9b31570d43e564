"""MAM adapter, mix-and-match: a prefix on the attention, a scaled parallel adapter on the feed-forward network.

arXiv 2110.04366, sec. 4.6: prefix tuning with a small bottleneck at the attention, and most of the capacity at the
feed-forward network. The size is both the prefix's length and the adapter's width, 2 m d_kv + 2 d m + d + m parameters
(the paper fixes the length at 30 and lets the width grow; small budgets leave no room for that). Each part trains at
its own rate. The prefix changes the output at init. It does not merge.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from peftsearch.backbone.anatomy import Block
from peftsearch.methods.adapter_parallel import ParallelAdapter
from peftsearch.methods.added import Added
from peftsearch.methods.method import Method
from peftsearch.methods.prefix import Prefix

if TYPE_CHECKING:
    from torch import nn

    from peftsearch.methods.layers.attachment import Attachment


@dataclass(frozen=True, kw_only=True, slots=True)
class MixAndMatch(Added):
    """A prefix and a parallel adapter of one size."""

    name: str = "mam"
    paper: str = "2110.04366, sec. 4.6"
    parts: tuple[Method, ...] = (Prefix(), ParallelAdapter())
    lr_scale: float = 1.0
    lr_follows_size: bool = True
    knob: str = "size"
    exact_at_init: bool = False

    @property
    def places(self) -> str:
        """The places of the parts."""
        return " and ".join(part.places for part in self.parts)

    def obstacle(self, block: Block) -> str | None:
        """The obstacle of the first part that has one."""
        return next((obstacle for part in self.parts if (obstacle := part.obstacle(block)) is not None), None)

    def max_size(self, block: Block) -> int:
        """The smallest of the parts' largest sizes."""
        return min(part.max_size(block) for part in self.parts)

    def count(self, block: Block, size: int) -> int:
        """The sum over the parts."""
        return sum(part.count(block, size) for part in self.parts)

    def label(self, block: Block, size: int) -> str:
        """The labels of the parts: `l=2 m=2`."""
        return " ".join(part.label(block, size) for part in self.parts)

    def attach(self, model: nn.Module, block: Block, size: int) -> Attachment:
        """Attach every part at this size."""
        from peftsearch.methods.layers.attachment import join

        return join({part.name: part.attach(model, block, size) for part in self.parts})
