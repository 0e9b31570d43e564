"""KronA_res against its formula with a dense product, seen from outside, on every family."""

from __future__ import annotations

import pytest
import torch

from peftsearch.backbone.detect import detect
from peftsearch.injection.inject import inject
from peftsearch.methods import METHODS
from tests.methods import disturb, make, place
from tests.tiny import FAMILIES, tiny_input


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_adds_the_papers_formula_of_the_networks_input(family: str) -> None:
    model = make(family)
    block = detect(model).blocks[-1]
    first, last = model.get_submodule(block.ffn.inputs[0].path), model.get_submodule(block.ffn.output.path)
    seen: dict[str, torch.Tensor] = {}
    first.register_forward_pre_hook(lambda module, args: seen.update(x=args[0]))
    last.register_forward_hook(lambda module, args, output: seen.update(plain=output))  # runs before the method's
    injection = inject(model, place(detect(model), krona_res=2))
    last.register_forward_hook(lambda module, args, output: seen.update(adapted=output))
    disturb(model)
    own = injection.injected[f"{block.stack}_{block.index}_krona_res"]
    model(**tiny_input(model))
    expected = seen["plain"] + seen["x"] @ torch.kron(own.a, own.b).T + own.residual * seen["x"]
    assert own.residual.abs() > 1e-3
    torch.testing.assert_close(seen["adapted"], expected, atol=1e-5, rtol=1e-5)
    assert own.tap.seen is None


def test_counts_and_initial_values() -> None:
    model = make()
    block = detect(model).blocks[0]
    method = METHODS["krona_res"]
    assert [method.count(block, size) for size in (1, 2)] == [4 * 8 + 8 * 4 + 1, 4 * 4 + 8 * 8 + 1]
    assert method.label(block, 2) == "A 4x4"
    own = method.attach(model, block, 1).module
    assert [name for name, p in own.named_parameters() if p.any()] == ["b"]


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_an_error_in_the_network_leaves_nothing_after_removal(family: str) -> None:
    model = make(family)
    injection = inject(model, place(detect(model), krona_res=1))
    own = injection.injected[f"{detect(model).blocks[0].stack}_0_krona_res"]

    def fail(*args: object) -> None:
        raise RuntimeError("out of memory")

    handle = model.get_submodule(detect(model).blocks[0].ffn.output.path).register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        model(**tiny_input(model))
    assert own.tap.seen is not None
    handle.remove()
    injection.remove()
    assert own.tap.seen is None
