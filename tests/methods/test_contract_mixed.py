"""SAID's transform, MAM and UniPELT against their formulas."""

from __future__ import annotations

from math import sqrt

import pytest
import torch
from torch import nn

from peftsearch.backbone.detect import detect
from peftsearch.injection.inject import inject, injection_of, param_groups
from peftsearch.injection.rates import REFERENCE_SIZE
from peftsearch.methods import METHODS
from peftsearch.methods.layers.said import Fastfood, Subspace, hadamard
from peftsearch.methods.layers.unipelt import Gate, GatedBottleneck, GatedLowRank
from tests.methods import disturb, make, place
from tests.tiny import FAMILIES, tiny_input


def dense_hadamard(n: int) -> torch.Tensor:
    h = torch.ones(1, 1)
    while len(h) < n:
        h = torch.kron(torch.tensor([[1.0, 1.0], [1.0, -1.0]]), h)
    return h


@torch.no_grad()
def test_said_projects_by_h_g_pi_h_b() -> None:
    torch.manual_seed(0)
    x = torch.randn(16)
    torch.testing.assert_close(hadamard(x), dense_hadamard(16) @ x)
    model = make()
    inject(model, place(detect(model), said=3))
    disturb(model)
    own = next(m for m in model.modules() if isinstance(m, Subspace))
    fast = own.maps["query"]
    assert isinstance(fast, Fastfood)
    n, h = fast.padded, dense_hadamard(fast.padded)
    theta = torch.zeros(n)
    theta[: len(own.theta)] = own.theta
    order = torch.eye(n)[fast.get_buffer("order")]
    dense = h @ torch.diag(fast.get_buffer("normals")) @ order @ h @ torch.diag(fast.get_buffer("signs")) @ theta
    divisor = (n * fast.get_buffer("normals").square().sum() * (fast.n / n)).sqrt()
    torch.testing.assert_close(fast.delta().flatten(), own.scale * dense[: fast.n] / divisor)
    # On average the projection keeps the length: |P x|^2 is |x|^2 up to chance.
    assert 0.5 < float(fast.delta().norm() / (own.scale * own.theta).norm()) < 2


def test_said_means_the_same_after_another_seed() -> None:
    model, deltas = make(), []
    for seed in (1, 2):
        with inject(model, place(detect(model), said=3), seed=seed):
            own = next(m for m in model.modules() if isinstance(m, Subspace))
            own.theta.data.fill_(1.0)
            deltas.append([m.delta().detach() for m in own.maps.values()])  # type: ignore[operator]
    assert torch.equal(deltas[0][0], deltas[1][0])
    assert not torch.equal(deltas[0][0], deltas[0][1])


@pytest.mark.parametrize("family", sorted(FAMILIES))
@torch.no_grad()
def test_mam_is_its_two_parts(family: str) -> None:
    model = make(family)
    if METHODS["mam"].obstacle(detect(model).blocks[0]):
        pytest.skip("no prefix on this family")
    with inject(model, place(detect(model), mam=2)):
        disturb(model)
        together = model(**tiny_input(model)).logits
        values = {key: p.clone() for key, p in model.get_submodule("peftsearch").named_parameters()}
        rates = {g["name"]: g["lr"] for g in param_groups(model, 1.0)}
        placements = injection_of(model).architecture.placements
        n_params = {p.n_params for p in placements}
    assert rates["mam.prefix"] == METHODS["prefix"].lr_scale
    # A decoder's blocks have a cross-attention and so more prefixes: the last group is theirs.
    factor = sqrt(REFERENCE_SIZE / max(n_params))
    assert rates["mam.adapter_parallel"] == pytest.approx(METHODS["adapter_parallel"].lr_scale * factor)
    with inject(model, place(detect(model), prefix=2, adapter_parallel=2)) as injection:
        for key, parameter in injection.injected.named_parameters():
            block, _, rest = key.partition(".")
            stack, index, part = block.split("_", 2)
            parameter.copy_(values[f"{stack}_{index}_mam.{part}.{rest}"])
        assert torch.equal(model(**tiny_input(model)).logits, together)


@torch.no_grad()
def test_unipelt_scales_each_part_by_the_gate_of_its_input() -> None:
    model = make()
    inputs = tiny_input(model)
    block = detect(model).blocks[0]
    inject(model, place(detect(model), unipelt=2))
    disturb(model)
    query, output = model.get_submodule(block.attention.query.path), model.get_submodule(block.ffn.output.path)
    seen: dict[str, torch.Tensor] = {}
    for name, module in (("query", query), ("output", output)):
        module.register_forward_hook(lambda m, args, out, name=name: seen.update({f"{name}_in": args[0], name: out}))
    model(**inputs)
    low = next(m for m in model.modules() if isinstance(m, GatedLowRank))
    x = seen["query_in"]
    opened = torch.sigmoid(x @ low.gate.w + low.gate.b).mean(dim=1)[:, None, None]
    assert opened.min() > 0
    assert opened.max() < 1
    plain = nn.functional.linear(x, query.weight, query.bias)
    torch.testing.assert_close(seen["query"], plain + opened * low.scaling * (x @ low.a.t() @ low.b.t()))
    bottleneck = next(m for m in model.modules() if isinstance(m, GatedBottleneck))
    h = nn.functional.linear(seen["output_in"], output.weight, output.bias)
    delta = nn.functional.gelu(h @ bottleneck.w_down.t() + bottleneck.b_down) @ bottleneck.w_up.t() + bottleneck.b_up
    opened = torch.sigmoid(h @ bottleneck.gate.w + bottleneck.gate.b).mean(dim=1)[:, None, None]
    torch.testing.assert_close(seen["output"], h + opened * delta)
    assert sum(isinstance(m, Gate) for m in model.modules()) == 4 * len(detect(model).blocks)


@torch.no_grad()
def test_a_shut_gate_takes_a_part_out() -> None:
    model = make()
    with inject(model, place(detect(model), unipelt=2)):
        disturb(model)
        for gate in (m for m in model.modules() if isinstance(m, Gate)):
            gate.w.zero_()
            gate.b.fill_(-100.0)
        shut = model(**tiny_input(model)).logits
    # A shut prefix has keys and values of zero: its tokens still take their part of the attention.
    with inject(model, place(detect(model), prefix=2)) as injection:
        for parameter in injection.injected.parameters():
            parameter.zero_()
        torch.testing.assert_close(shut, model(**tiny_input(model)).logits)
