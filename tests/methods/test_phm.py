"""PHM adapters against their formula with dense Kronecker products, and their counts against the paper's table."""

from __future__ import annotations

import pytest
import torch
import transformers
from torch import nn

from peftsearch.backbone.detect import detect
from peftsearch.errors import MethodError
from peftsearch.injection.inject import inject
from peftsearch.methods import METHODS
from peftsearch.methods.layers.phm import KroneckerBottleneck, KroneckerSum
from peftsearch.methods.phm import PHM
from tests.methods import make, place
from tests.tiny import TOKENS, build


@pytest.mark.parametrize("n", [1, 2, 4])
@torch.no_grad()
def test_computes_the_papers_formula(n: int) -> None:
    torch.manual_seed(0)
    own = KroneckerBottleneck(16, 8, n)
    for parameter in own.parameters():
        nn.init.normal_(parameter)
    down, up = (sum(torch.kron(a, b) for a, b in zip(m.a, m.b, strict=True)) for m in (own.down, own.up))
    h = torch.randn(2, 5, 16)
    expected = h + nn.functional.gelu(h @ down.T + own.b_down) @ up.T + own.b_up
    torch.testing.assert_close(own(nn.Identity(), (), h), expected, atol=1e-4, rtol=1e-4)


def test_with_one_product_it_is_the_serial_adapter() -> None:
    """n = 1 has a map of one dense B and a number A: two parameters a place more than the adapter."""
    block = detect(make()).blocks[0]
    assert PHM(n=1).count(block, 5) == METHODS["adapter"].count(block, 5) + 2 * 2


def test_counts_places_and_hooks() -> None:
    model = make()
    block = detect(model).blocks[0]
    d, k, n = 32, 8, 4
    assert METHODS["phm"].count(block, 2) == 2 * (2 * (k * d // n + n**3) + k + d)
    assert (METHODS["phm"].label(block, 2), METHODS["phm"].places) == ("k=8", "after attention and after ffn")
    assert METHODS["phm"].max_size(block) == d // n
    attachment = METHODS["phm"].attach(model, block, 2)
    assert list(dict(attachment.module.named_children())) == ["attention", "ffn"]


def test_initial_values_are_those_of_the_serial_adapter() -> None:
    torch.manual_seed(0)
    down = KroneckerSum(64, 256, 4, at_zero=False).matrix()
    assert 0.006 < down.std() < 0.012  # 0.0088, give or take the few numbers of the A_i
    own = KroneckerBottleneck(64, 8, 4)
    assert not own.up.matrix().any()
    assert own.up.a.any()


def test_widths_that_do_not_divide_are_refused() -> None:
    config = transformers.BertConfig(
        hidden_size=30, num_attention_heads=3, num_hidden_layers=1, intermediate_size=60, **TOKENS
    )
    model = build(config, 2)
    backbone = detect(model)
    assert "is not a multiple of 4; use adapter there" in str(METHODS["phm"].obstacle(backbone.blocks[0]))
    with pytest.raises(MethodError, match=r"block 0, phm: the hidden size 30"):
        inject(model, place(backbone, phm=1), backbone)
