"""IA3: infused adapter by inhibiting and amplifying inner activations (arXiv 2205.05638).

Sec. 3.3: softmax(Q (l_k * K)^T / sqrt(d_k)) (l_v * V) and (l_ff * f(W_1 x)) W_2, with learned vectors l that start at
one. They act in every self-attention, in the cross-attention of a decoder, and in the feed-forward network (in a gated
network, on the product of gate and up): d_k + d_v + d_ff parameters per block, d_k + d_v more with cross-attention. In
a fused map only the keys' and values' slices are scaled. There is one size. Each l is stored as 1 + delta with
delta = 0, so the output is unchanged at init. It merges: l_k and l_v into the rows and biases of the key and value
maps, l_ff into the columns of the output map.

Other `targets` scale the outputs of other maps too: `ia3:all` those of all maps but the first of the feed-forward
network, whose target `ffn_in` is the inner activation, as in the paper.

As in HF peft, the projection's result is scaled before rotary positions, and before the norm that some families (Qwen3)
apply to their keys.

Left out: the paper's pretraining of the vectors and its additional losses.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from peftsearch.backbone.anatomy import Block, Projection
from peftsearch.methods.projections import check_targets, target_projections

if TYPE_CHECKING:
    from torch import nn

    from peftsearch.methods.layers.attachment import Attachment


@dataclass(frozen=True, kw_only=True, slots=True)
class IA3:
    """Learned scales of a block's keys, values and inner activation."""

    name: str = "ia3"
    paper: str = "2205.05638, sec. 3.3"
    targets: tuple[str, ...] = ("key", "value", "ffn_in")
    """Maps whose outputs are scaled, out of `TARGETS`; `ffn_in` is the inner activation of the feed-forward network."""
    lr_scale: float = 2.9
    """Few scales have to move far."""
    lr_follows_size: bool = True
    knob: str = "subset"
    merges: bool = True
    changes: str = "rows and biases of maps, columns of ffn_out (each by one factor)"
    exact_at_init: bool = True

    def __post_init__(self) -> None:
        check_targets(self.name, self.targets)

    @property
    def places(self) -> str:
        """The scaled activations, in words."""
        outputs = [name for name in self.targets if name != "ffn_in"]
        inner = ["the input of the ffn's output map"] if self.scales_inner else []
        return " and ".join([", ".join(f"{name} outputs" for name in outputs), *inner] if outputs else inner)

    @property
    def scales_inner(self) -> bool:
        """Whether the inner activation of the feed-forward network is scaled."""
        return "ffn_in" in self.targets

    def scaled(self, block: Block) -> dict[str, Projection]:
        """The maps whose outputs are scaled, in all attentions of the block, by name."""
        return target_projections(block, [name for name in self.targets if name != "ffn_in"])

    def obstacle(self, block: Block) -> str | None:
        """None: every block has keys, values and a feed-forward network."""
        return None

    def max_size(self, block: Block) -> int:
        """1: there is one size."""
        return 1

    def count(self, block: Block, size: int) -> int:
        """The outputs of the scaled maps, and d_ff for the inner activation."""
        return sum(p.d_out for p in self.scaled(block).values()) + block.ffn.d_ff * self.scales_inner

    def changed(self, block: Block, size: int) -> int:
        """Entries of the vectors, which are enough to store the result: as many as are trained (survey 2303.15647)."""
        return self.count(block, size)

    def label(self, block: Block, size: int) -> str:
        """The scaled parts."""
        short = {"query": "q", "key": "k", "value": "v", "output": "o", "ffn_in": "ffn", "ffn_out": "out"}
        return "+".join(short[name] for name in self.targets)

    def attach(self, model: nn.Module, block: Block, size: int) -> Attachment:
        """Hook the scales on keys, values and the feed-forward network's output map."""
        from peftsearch.methods.layers.ia3 import attach

        return attach(model, self.scaled(block), block.ffn if self.scales_inner else None)
