"""LoRA with a shared A or B against plain LoRA with copies of the shared matrix, and the groups that share."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from peftsearch.backbone.detect import detect
from peftsearch.design.budget import parse_budget
from peftsearch.design.design import Design
from peftsearch.design.fitting import fit
from peftsearch.errors import MethodError
from peftsearch.injection.inject import inject
from tests.methods import disturb, make, place
from tests.tiny import tiny_input


def design(*groups: str) -> Design:
    methods = tuple(tuple(group.split("+")) for group in groups)
    return Design(grouping="uniform", allocation=(1.0,) * len(groups), methods=methods)


@pytest.mark.parametrize("family", ["bert", "gpt2", "t5"])
@pytest.mark.parametrize("shared", ["a", "b"])
def test_is_lora_with_equal_matrices_in_all_blocks_of_a_stack(family: str, shared: str) -> None:
    name = f"lora_shared_{shared}"
    ours, theirs = make(family), make(family)
    theirs.load_state_dict(ours.state_dict())
    backbone = detect(ours)
    injection = inject(ours, fit(design(name, name), backbone, parse_budget("100%", backbone.n_params)), backbone)
    disturb(ours)
    sizes = {p.size for p in injection.architecture.placements}
    plain = inject(theirs, place(backbone, lora=sizes.pop()), backbone)
    assert not sizes
    n_own = 0
    with torch.no_grad():
        for block in backbone.blocks:
            pairs = injection.injected[f"{block.stack}_{block.index}_{name}"]
            for target, pair in plain.injected[f"{block.stack}_{block.index}_lora"].named_children():
                own = pairs.get_submodule(target)
                pair.a.copy_(own.a)
                pair.b.copy_(own.b)
                n_own += (own.b if shared == "a" else own.a).numel()
                n_own += (own.a if shared == "a" else own.b).numel() * (block.index == 0)
        torch.testing.assert_close(ours(**tiny_input(ours)).logits, theirs(**tiny_input(theirs)).logits)
    assert injection.architecture.n_params == n_own == sum(p.numel() for p in injection.injected.parameters())


def test_neighbouring_groups_with_equal_methods_share_and_others_do_not() -> None:
    model = make()
    backbone = detect(model)
    n_blocks = len(backbone.blocks)
    budget = parse_budget("20%", backbone.n_params)
    together = fit(design("lora_shared_a", "lora_shared_a"), backbone, budget)
    apart = fit(design("lora_shared_a", "lora_shared_a+ia3"), backbone, budget)
    for architecture, n_shared in ((together, 1), (apart, 2)):
        with inject(model, architecture, backbone) as injection:
            modules = [injection.injected[f"encoder_{i}_lora_shared_a"] for i in range(n_blocks)]
            assert len({id(module.get_submodule("query").a) for module in modules}) == n_shared


def test_unequal_sizes_in_a_group_are_refused() -> None:
    model = make()
    backbone = detect(model)
    architecture = fit(design("lora_shared_a"), backbone, parse_budget("20%", backbone.n_params))
    *others, last = architecture.placements
    n_params = last.n_params // last.size * (last.size - 1)
    broken = replace(architecture, placements=(*others, replace(last, size=last.size - 1, n_params=n_params)))
    with pytest.raises(MethodError, match="with which it shares parameters"):
        inject(model, broken, backbone)
    assert not hasattr(model, "peftsearch")
