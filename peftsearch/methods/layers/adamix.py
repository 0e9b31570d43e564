"""The layers of AdaMix; `peftsearch.methods.adamix` names the paper."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from peftsearch.backbone.anatomy import Projection
from peftsearch.methods.layers.adapter import start_small
from peftsearch.methods.layers.attachment import Attachment
from peftsearch.methods.layers.projections import add_delta, hook_outputs


class Mixture(nn.Module):
    """M adapters at one place; `forward` is the hook on the output projection."""

    def __init__(self, hidden_size: int, width: int, n_adapters: int) -> None:
        super().__init__()
        self.w_down = nn.Parameter(torch.empty(n_adapters, width, hidden_size))
        self.b_down = nn.Parameter(torch.zeros(n_adapters, width))
        self.w_up = nn.Parameter(torch.zeros(n_adapters, hidden_size, width))
        self.b_up = nn.Parameter(torch.zeros(n_adapters, hidden_size))
        start = start_small(torch.empty(width, hidden_size))
        with torch.no_grad():
            self.w_down.copy_(start.expand_as(self.w_down))

    def weights(self) -> tuple[torch.Tensor, ...]:
        """W_down, b_down, W_up and b_up: from randomly drawn adapters in training, the mean of all in evaluation."""
        together = (self.w_down, self.b_down, self.w_up, self.b_up)
        if not self.training:
            return tuple(each.mean(dim=0) for each in together)
        # torch's CPU generator, because gradient checkpointing restores it when it recomputes the block.
        down, up = (int(i) for i in torch.randint(len(self.w_down), (2,)))
        return self.w_down[down], self.b_down[down], self.w_up[up], self.b_up[up]

    def forward(self, module: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        """Add W_up f(W_down h + b_down) + b_up to the network's output h `(..., d)`."""
        w_down, b_down, w_up, b_up = self.weights()
        low = functional.gelu(functional.linear(output.to(w_down.dtype), w_down, b_down))  # (..., width)
        return add_delta(output, functional.linear(low, w_up, b_up), None)


class Mixtures(nn.Module):
    """The mixture of a block; as `Routed`, it makes the training loop run two forwards per batch."""

    is_routed = True

    def __init__(self, mixture: Mixture) -> None:
        super().__init__()
        self.ffn = mixture


def attach(model: nn.Module, output: Projection, width: int, n_adapters: int) -> Attachment:
    """Hook a mixture of adapters behind a feed-forward network's output projection."""
    module = Mixtures(Mixture(output.d_out, width, n_adapters))
    return Attachment(module=module, undo=hook_outputs(model, {"ffn": (output.path, module.ffn.forward)}))


def reduced(module: nn.Module) -> dict[str, torch.Tensor]:
    """The mean of the adapters, as `adapter_pfeiffer` holds it."""
    assert isinstance(module, Mixtures), "the module is of this method"
    return {f"ffn.{name}": parameter.detach().mean(dim=0) for name, parameter in module.ffn.named_parameters()}
