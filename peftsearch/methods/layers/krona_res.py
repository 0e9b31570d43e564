"""The layer of KronA_res; `peftsearch.methods.krona_res` names the paper and the equation."""

from __future__ import annotations

import math

import torch
from torch import nn

from peftsearch.backbone.anatomy import FeedForward
from peftsearch.methods.layers.attachment import Attachment
from peftsearch.methods.layers.beside import Beside, attach_beside
from peftsearch.methods.layers.krona import Factors, multiply


class KroneckerBeside(Beside):
    """A, B and s_res around one feed-forward network."""

    def __init__(self, factors: Factors, scaling: float) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.zeros(factors[0]))
        self.b = nn.Parameter(torch.empty(factors[1]))
        self.residual = nn.Parameter(torch.zeros(1))
        self.scaling = scaling
        nn.init.kaiming_uniform_(self.b, a=math.sqrt(5))

    def delta(self, x: torch.Tensor) -> torch.Tensor:
        """Compute s (A kron B) x + s_res x (2212.10650 sec. 3) for x `(..., d)`."""
        x = x.to(self.a.dtype)
        return self.scaling * multiply(self.a, self.b, x) + self.residual * x


def attach(model: nn.Module, ffn: FeedForward, factors: Factors, scaling: float) -> Attachment:
    """Hook the factors on the network's first and last map."""
    return attach_beside(model, ffn, KroneckerBeside(factors, scaling))
