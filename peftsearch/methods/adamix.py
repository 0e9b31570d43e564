"""AdaMix: several adapters per place, one drawn at random in training, averaged afterwards (arXiv 2205.12410).

Sec. 3.1: every forward in training draws one of M down-projections and one of M up-projections (M = 4). Sec. 3.2: two
forwards of a batch draw independently, and a consistency loss, the mean of the Kullback-Leibler divergences of their
predictions in both directions, ties them together. Sec. 3.3: after training the weights are averaged into one adapter;
the placement becomes one of `adapter_pfeiffer`. Evaluation uses the mean. It acts after the feed-forward network;
the size is the width m; M (2 d m + d + m) parameters are trained, 2 d m + d + m are kept. All M adapters start from the
same values as in the authors' code, initialised as the plain adapter is; the random draws make them diverge. The output
is unchanged at init. It does not merge into the backbone.

Each adapter takes part in a quarter of the forwards, so AdaMix needs more steps than a plain adapter.

The second forward doubles the cost of a step. A user's own training loop gets it from `peftsearch.extra_loss`.

Left out: sharing of one projection by all adapters (sec. 3.4).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from peftsearch.backbone.anatomy import Block
from peftsearch.methods.adapter import Adapter

if TYPE_CHECKING:
    import torch
    from torch import nn

    from peftsearch.methods.layers.attachment import Attachment

N_ADAPTERS = 4
"""Adapters per place (2205.12410, sec. 4.1)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AdaMix(Adapter):
    """A mixture of adapters after the feed-forward network, averaged after training."""

    name: str = "adamix"
    paper: str = "2205.12410, sec. 3"
    lr_scale: float = 1.0
    places_in_block: tuple[str, ...] = ("ffn",)
    becomes: str = "adapter_pfeiffer"

    def count(self, block: Block, size: int) -> int:
        """M (2 d m + d + m)."""
        return N_ADAPTERS * self.changed(block, size)

    def changed(self, block: Block, size: int) -> int:
        """The parameters of the averaged adapter: 2 d m + d + m."""
        d = block.ffn.output.d_out
        return 2 * d * size + d + size

    def label(self, block: Block, size: int) -> str:
        """The number of adapters and their width: `4 x m=8`."""
        return f"{N_ADAPTERS} x m={size}"

    def reduced_size(self, block: Block, size: int) -> int:
        """The width, unchanged."""
        return size

    def reduced(self, module: nn.Module, block: Block) -> dict[str, torch.Tensor]:
        """The mean of the adapters, as `adapter_pfeiffer` holds it."""
        from peftsearch.methods.layers.adamix import reduced

        return reduced(module)

    def attach(self, model: nn.Module, block: Block, size: int) -> Attachment:
        """Hook a mixture of adapters of width `size` on the network's output projection."""
        from peftsearch.methods.layers.adamix import attach

        return attach(model, block.ffn.output, size, N_ADAPTERS)
