"""AdaMix: several adapters a place, one of them at random in training, their mean afterwards (arXiv 2205.12410).

Sec. 3.1: every forward in training draws one of M down-projections and one of M up-projections (M = 4). Sec. 3.2: two
forwards of a batch draw apart, and a consistency loss, the mean of the Kullback-Leibler divergences of their
predictions both ways, holds them together. Sec. 3.3: after training the weights are averaged into one adapter; the
placement becomes one of `adapter_pfeiffer`. Evaluation works with the mean. It acts after the feed-forward network;
the size is the width m; M (2 d m + d + m) parameters are trained, 2 d m + d + m are kept. Initialised as the adapter
is, all M alike (as in the authors' code; their draws tell them apart, and their mean starts as one of them): the output
is unchanged at init. It does not merge into the backbone.

Each adapter takes part in a quarter of the forwards, so it wants more steps than an adapter.

The second forward doubles the cost of a step; `peftsearch.extra_loss` makes it in a training loop of one's own.

Left out: sharing of one projection by all adapters (sec. 3.4).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from peftsearch.backbone.anatomy import Block
from peftsearch.methods.adapter import INIT_STD, Adapter
from peftsearch.methods.method import Attachment
from peftsearch.methods.projections import add_delta, hook_outputs

N_ADAPTERS = 4
"""Adapters of a place (2205.12410, sec. 4.1)."""


class Mixture(nn.Module):
    """M adapters of one place; its `forward` is the hook on the output projection."""

    def __init__(self, hidden_size: int, width: int) -> None:
        super().__init__()
        self.w_down = nn.Parameter(torch.empty(N_ADAPTERS, width, hidden_size))
        self.b_down = nn.Parameter(torch.zeros(N_ADAPTERS, width))
        self.w_up = nn.Parameter(torch.zeros(N_ADAPTERS, hidden_size, width))
        self.b_up = nn.Parameter(torch.zeros(N_ADAPTERS, hidden_size))
        start = nn.init.trunc_normal_(torch.empty(width, hidden_size), std=INIT_STD, a=-2 * INIT_STD, b=2 * INIT_STD)
        with torch.no_grad():
            self.w_down.copy_(start.expand_as(self.w_down))

    def weights(self) -> tuple[torch.Tensor, ...]:
        """W_down, b_down, W_up and b_up: of drawn adapters in training, the mean of all in evaluation."""
        together = (self.w_down, self.b_down, self.w_up, self.b_up)
        if not self.training:
            return tuple(each.mean(dim=0) for each in together)
        # From torch's generator of the CPU, which gradient checkpointing restores when it computes the block anew.
        down, up = (int(i) for i in torch.randint(N_ADAPTERS, (2,)))
        return self.w_down[down], self.b_down[down], self.w_up[up], self.b_up[up]

    def forward(self, module: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        """Add W_up f(W_down h + b_down) + b_up to the network's output h `(..., d)`."""
        w_down, b_down, w_up, b_up = self.weights()
        low = functional.gelu(functional.linear(output.to(w_down.dtype), w_down, b_down))  # (..., width)
        return add_delta(output, functional.linear(low, w_up, b_up), None)


class Mixtures(nn.Module):
    """The mixtures of a block; that it is `Routed` asks the training loop for two forwards."""

    is_routed = True

    def __init__(self, mixture: Mixture) -> None:
        super().__init__()
        self.ffn = mixture


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
        """The one adapter that is kept."""
        d = block.ffn.output.d_out
        return 2 * d * size + d + size

    def label(self, block: Block, size: int) -> str:
        """The number of adapters and their width: `4 x m=8`."""
        return f"{N_ADAPTERS} x m={size}"

    def reduced_size(self, block: Block, size: int) -> int:
        """The width stays."""
        return size

    def reduced(self, module: nn.Module, block: Block) -> dict[str, torch.Tensor]:
        """The mean of the adapters, as `adapter_pfeiffer` holds it."""
        assert isinstance(module, Mixtures), "the module is of this method"
        return {f"ffn.{name}": parameter.detach().mean(dim=0) for name, parameter in module.ffn.named_parameters()}

    def attach(self, model: nn.Module, block: Block, size: int) -> Attachment:
        """Hook a mixture of adapters of width `size` on the network's output projection."""
        module = Mixtures(Mixture(block.ffn.output.d_out, size))
        hooks = {"ffn": (block.ffn.output.path, module.ffn.forward)}
        return Attachment(module=module, undo=hook_outputs(model, hooks))
