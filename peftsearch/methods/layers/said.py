"""The layers of SAID; `peftsearch.methods.said` names the paper and the equations."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping

import torch
from torch import nn
from torch.nn import functional

from peftsearch.backbone.anatomy import Projection
from peftsearch.methods.layers.attachment import Attachment
from peftsearch.methods.layers.projections import add_delta, fold_weight, hook_forwards
from peftsearch.methods.projections import margins_of


def hadamard(x: torch.Tensor) -> torch.Tensor:
    """The unnormalised Walsh-Hadamard transform of a vector `(n,)`, n a power of two: H x with entries of +-1."""
    n = x.numel()
    half = 1
    while half < n:
        pairs = x.view(-1, 2, half)
        x = torch.stack((pairs[:, 0] + pairs[:, 1], pairs[:, 0] - pairs[:, 1]), dim=1)
        half *= 2
    return x.reshape(n)


class Fastfood(nn.Module):
    """The projection of one map, from theta `(s,)` to a delta `(d_out, d_in)`; `forward` is the hook on the map."""

    def __init__(self, projection: Projection, owner: Subspace, name: str) -> None:
        super().__init__()
        self.shape = (projection.d_out, projection.d_in)
        self.n = projection.d_out * projection.d_in
        self.padded: int = 2 ** math.ceil(math.log2(self.n))
        self.margins = margins_of(projection)
        generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
        signs = torch.randint(0, 2, (self.padded,), generator=generator) * 2 - 1
        normals = torch.randn(self.padded, generator=generator)
        self.register_buffer("signs", signs.float(), persistent=False)
        self.register_buffer("order", torch.randperm(self.padded, generator=generator), persistent=False)
        self.register_buffer("normals", normals, persistent=False)
        # The divisor of the authors' code makes |P x| equal to |x| on average, whatever the number of weights.
        self.scale = 1 / (math.sqrt(self.padded * float(normals.square().sum())) * math.sqrt(self.n / self.padded))
        self.__dict__["owner"] = owner  # bypasses nn.Module's registration: the owner already holds this module

    def delta(self) -> torch.Tensor:
        """The delta lambda P(theta), `(d_out, d_in)` (2012.13255, eq. 3 and 4)."""
        owner: Subspace = self.__dict__["owner"]
        x = functional.pad(owner.theta, (0, self.padded - len(owner.theta)))
        x = hadamard(self.get_buffer("signs") * x)[self.get_buffer("order")]
        x = hadamard(self.get_buffer("normals") * x)
        return owner.scale * (self.scale * x[: self.n]).view(self.shape)

    def forward(self, module: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        """Add the delta's product with the input `(..., d_in)` to the output `(..., d_module)`."""
        delta = self.delta()
        return add_delta(output, functional.linear(args[0].to(delta.dtype), delta), self.margins)

    def fold(self, module: nn.Module) -> dict[str, torch.Tensor] | None:
        """The weight plus the delta; see `Foldable`."""
        return fold_weight(module, self.delta(), self.margins)


class Subspace(nn.Module):
    """theta and lambda of a block, and the projections of its maps."""

    def __init__(self, projections: Mapping[str, Projection], size: int) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.zeros(size))
        self.scale = nn.Parameter(torch.ones(()))
        self.maps = nn.ModuleDict({name: Fastfood(p, self, f"{p.path}.{name}") for name, p in projections.items()})


def attach(model: nn.Module, targets: Mapping[str, Projection], dimensions: int) -> Attachment:
    """Hook the projection of theta on every target."""
    module = Subspace(targets, dimensions)
    return Attachment(module=module, undo=hook_forwards(model, targets, module.maps))
