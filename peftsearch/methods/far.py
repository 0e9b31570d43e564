"""FAR, freeze and reconfigure: training the feed-forward nodes that learn most (arXiv 2205.01541).

Sec. 3: after a priming phase the nodes of the feed-forward maps are ranked by how far their weights moved; the share r
that moved most is trained, the others are frozen, and the maps are split accordingly. Here a node is one of the d_ff
inner units: its row and bias in each map into the network, and its column in the map back. The distance that a node
moves is estimated to first order, without training: the L1 norm of the sum of its gradients over the priming batches,
which is how far one step of gradient descent would move it. The size is the number of nodes n, with n (2 d + 1)
parameters (n (3 d) in a gated network without biases). Deltas start at zero: the output is unchanged at init. It
merges.

Left out: priming by training, and the norms and biases that the paper trains together with the nodes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from peftsearch.backbone.anatomy import Block

if TYPE_CHECKING:
    from torch import nn

    from peftsearch.methods.layers.attachment import Attachment


@dataclass(frozen=True, kw_only=True, slots=True)
class Far:
    """Deltas on the inner nodes of a feed-forward network that learn most."""

    name: str = "far"
    paper: str = "2205.01541, sec. 3"
    places: str = "inner nodes of ffn"
    lr_scale: float = 1.4
    lr_follows_size: bool = True
    knob: str = "nodes"
    merges: bool = True
    changes: str = "the chosen nodes"
    exact_at_init: bool = True

    def obstacle(self, block: Block) -> str | None:
        """None: every block has a feed-forward network."""
        return None

    def max_size(self, block: Block) -> int:
        """The number of all nodes."""
        return block.ffn.d_ff

    def count(self, block: Block, size: int) -> int:
        """For each node a row and a bias in each map into the network, and a column in the map back."""
        return size * (sum(p.d_in + p.bias for p in block.ffn.inputs) + block.ffn.output.d_out)

    def changed(self, block: Block, size: int) -> int:
        """The trained parameters of the nodes."""
        return self.count(block, size)

    def label(self, block: Block, size: int) -> str:
        """The number of nodes: `n=4`."""
        return f"n={size}"

    def attach(self, model: nn.Module, block: Block, size: int) -> Attachment:
        """Hook deltas on the maps of the network; `prime` chooses the nodes."""
        from peftsearch.methods.layers.far import attach

        return attach(model, block.ffn, size)
