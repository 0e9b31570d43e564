"""Intrinsic prompt tuning: the prompts that a subspace reaches, and what is left of it after training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import peftsearch
from peftsearch.backbone.detect import detect
from peftsearch.backbone.subspace import Directions, read_directions, with_subspace, write_subspace
from peftsearch.errors import BackboneError, CheckpointError, MethodError
from peftsearch.injection.inject import inject, injection_of, remove
from peftsearch.injection.reducing import reduce
from peftsearch.injection.states import state
from peftsearch.methods import METHODS
from peftsearch.methods.layers.prompt import FrontTokens
from tests.methods import disturb, equipped, make, place
from tests.tiny import tiny_input

IPT = METHODS["ipt"]


def front(model: Any) -> FrontTokens:
    return next(m for m in model.modules() if isinstance(m, FrontTokens))


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    found: torch.Tensor = model(**tiny_input(model)).logits
    return found


def test_facts() -> None:
    block = equipped(detect(make())).blocks[0]
    assert [IPT.count(block, d) for d in (1, 4)] == [1, 4]
    assert IPT.max_size(block) == 4
    assert IPT.changed(block, 1) == IPT.changed(block, 4) == METHODS["prompt"].count(block, 3)
    assert IPT.label(block, 4) == "d=4"


def test_without_a_subspace_the_next_step_is_named() -> None:
    model = make()
    with pytest.raises(MethodError, match="has no subspace of prompts; make one with `peftsearch subspace`"):
        inject(model, place(detect(model), ipt=1))
    with pytest.raises(MethodError, match=r"ipt cannot act on .* has no subspace of prompts"):
        peftsearch.inject(model, "ipt", budget="1%")


def test_all_directions_reproduce_any_prompt(tmp_path: Path) -> None:
    model, length, width = make(), 2, 32
    size = length * width
    generator = torch.Generator().manual_seed(0)
    basis, _ = torch.linalg.qr(torch.randn(size, size, generator=generator))
    basis = basis.reshape(size, length, width)
    mean, wanted = torch.randn(2, length, width, generator=generator)
    scale = torch.linspace(2, 0.5, size)
    whole = tmp_path / "whole.safetensors"
    write_subspace(whole, Directions(mean=mean, basis=basis, scale=scale), detect(model), ["a"])
    backbone = with_subspace(detect(model), whole)
    with inject(model, place(backbone, ipt=size), backbone) as injection:
        assert injection.n_params == sum(p.numel() for p in injection.injected.parameters()) == size
        prompt = front(model)
        torch.testing.assert_close(prompt.vectors(), mean)
        with torch.no_grad():
            prompt.coordinates.copy_((basis.flatten(1) @ (wanted - mean).flatten()) / scale)
        torch.testing.assert_close(prompt.vectors(), wanted, atol=1e-4, rtol=1e-4)
        ours = logits(model)
    with inject(model, place(backbone, prompt=length), backbone):
        with torch.no_grad():
            front(model).embedding.copy_(wanted)
        torch.testing.assert_close(ours, logits(model), atol=1e-4, rtol=1e-4)


def test_fewer_coordinates_are_the_first_directions() -> None:
    model = make()
    backbone = equipped(detect(model))
    subspace = backbone.subspace
    assert subspace is not None
    directions = read_directions(subspace)
    with inject(model, place(backbone, ipt=2), backbone):
        with torch.no_grad():
            front(model).coordinates.copy_(torch.tensor([1.0, -2.0]))
        expected = directions.mean + 4 * directions.basis[0] - 2 * 3 * directions.basis[1]
        torch.testing.assert_close(front(model).vectors(), expected)
        assert [tuple(v.shape) for k, v in state(model).items() if k.startswith("peftsearch.")] == [(2,)]


def test_it_becomes_a_prompt() -> None:
    model = make()
    backbone = equipped(detect(model))
    inject(model, place(backbone, ipt=3, lora=1), backbone)
    disturb(model)
    expected = logits(model)
    assert {p.method for p in reduce(model).placements} == {"prompt", "lora"}
    torch.testing.assert_close(logits(model), expected)
    remove(model)


def test_beside_ptuning_one_of_them_becomes_a_prompt() -> None:
    model = make()
    backbone = equipped(detect(model))
    inject(model, place(backbone, ptuning=2, ipt=3), backbone)
    disturb(model)
    expected = logits(model)
    assert len({p.method for p in reduce(model).placements} & {"ptuning", "ipt"}) == 1
    torch.testing.assert_close(logits(model), expected)


def test_what_is_saved_needs_no_file(tmp_path: Path) -> None:
    model = make()
    backbone = equipped(detect(model))
    inject(model, place(backbone, ipt=3), backbone)
    disturb(model)
    expected = logits(model)
    peftsearch.save(model, tmp_path / "saved")
    assert {p.method for p in injection_of(model).architecture.placements} == {"ipt"}
    again = make()
    loaded = peftsearch.load(again, tmp_path / "saved")
    assert [(p.method, p.size) for p in loaded.architecture.placements] == [("prompt", 3)]
    torch.testing.assert_close(logits(again), expected)
    with pytest.raises(CheckpointError, match="carries another architecture"):
        peftsearch.load(model, tmp_path / "saved")


def test_injection_in_a_users_own_code() -> None:
    model = make()
    subspace = equipped(detect(model)).subspace
    assert subspace is not None
    injection = peftsearch.inject(model, "ipt", budget="50%", subspace=subspace.path)
    assert injection.n_params == 4
    remove(model)


def test_a_file_that_changes_is_refused(tmp_path: Path) -> None:
    model, path = make(), tmp_path / "s.safetensors"
    own = equipped(detect(model)).subspace
    assert own is not None
    path.write_bytes(Path(own.path).read_bytes())
    backbone = with_subspace(detect(model), path)
    write_subspace(path, replace(read_directions(own), mean=torch.zeros(3, 32)), backbone, [])
    with pytest.raises(BackboneError, match="has changed"):
        inject(model, place(backbone, ipt=1), backbone)
    assert not hasattr(model, "peftsearch")


def test_beside_a_prompt_it_is_not_saved(tmp_path: Path) -> None:
    model = make()
    backbone = equipped(detect(model))
    inject(model, place(backbone, prompt=2, ipt=3), backbone)
    with pytest.raises(CheckpointError, match="ipt is saved as a prompt, and encoder block 0 has one already"):
        peftsearch.save(model, tmp_path / "saved")
    assert not (tmp_path / "saved").exists()
