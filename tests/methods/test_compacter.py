"""Compacter against dense Kronecker products, its shared rule, and the paper's own counts."""

from __future__ import annotations

import torch
from torch import nn

from peftsearch.backbone.detect import detect
from peftsearch.injection.inject import inject, param_groups
from peftsearch.injection.states import state
from peftsearch.methods import METHODS
from peftsearch.methods.compacter import Compacter, N
from peftsearch.methods.layers.compacter import Compact, LowRankKronecker
from tests.methods import disturb, make, place
from tests.tiny import tiny_input


def test_a_map_is_a_sum_of_kronecker_products() -> None:
    torch.manual_seed(0)
    own, rule = LowRankKronecker(12, 20, N, at_zero=False), torch.randn(4, 4, 4)
    expected = sum(torch.kron(rule[i], torch.outer(own.s[i], own.t[i])) for i in range(4))
    torch.testing.assert_close(own.matrix(rule), expected)


@torch.no_grad()
def test_adds_a_bottleneck_of_these_maps() -> None:
    model = make()
    output = model.get_submodule(detect(model).blocks[1].ffn.output.path)
    seen: dict[str, torch.Tensor] = {}
    output.register_forward_hook(lambda module, args, output: seen.update(plain=output))
    inject(model, place(detect(model), compacter=2))
    output.register_forward_hook(lambda module, args, output: seen.update(adapted=output))
    disturb(model)
    own = [m for m in model.modules() if isinstance(m, Compact)][1]
    place_ = own.places["ffn"]
    down, up = place_.down.matrix(own.rule), place_.up.matrix(own.rule)
    assert down.shape == (8, 32)
    model(**tiny_input(model))
    low = nn.functional.gelu(seen["plain"] @ down.t() + place_.b_down)
    torch.testing.assert_close(seen["adapted"], seen["plain"] + low @ up.t() + place_.b_up)


def test_all_blocks_share_one_rule_which_counts_once() -> None:
    model = make()
    with inject(model, place(detect(model), compacter=2)) as injection:
        rules = {id(m.rule) for m in model.modules() if isinstance(m, Compact)}
        assert len(rules) == 1
        group = next(g for g in param_groups(model, 1.0) if g["name"] == "compacter")
        assert sum(p.numel() for p in group["params"]) == injection.architecture.n_params
        assert sum(key.endswith(".rule") for key in state(model)) == 1
    blocks = detect(model).blocks
    assert injection.architecture.n_params == 64 + sum(METHODS["compacter"].count(b, 2) for b in blocks)


def test_counts_are_those_of_the_papers_table() -> None:
    """2106.04647, table 1: 0.073 % and 0.047 % of T5-base, whose 62 norms the paper trains as well (k = 24)."""
    d, k, n_blocks, n_norms, n_base = 768, 24, 24, 62, 222_903_552
    block = detect(make()).blocks[0]
    wide = {place: type("P", (), {"d_out": d}) for place in ("attention", "ffn")}

    class OnT5(Compacter):
        def outputs(self, block: object) -> dict[str, object]:  # type: ignore[override]
            return {place: wide[place] for place in self.places_in_block}

    for places, share in ((("attention", "ffn"), 0.073), (("ffn",), 0.047)):
        method = OnT5(places_in_block=places)
        total = method.n_shared(block, 1) + n_blocks * method.count(block, k // 4) + n_norms * d
        assert round(100 * total / n_base, 3) == share
