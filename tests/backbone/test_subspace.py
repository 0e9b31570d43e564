"""Files of subspaces: principal directions, and the files that are refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from peftsearch.backbone.subspace import (
    FORMAT,
    principal_directions,
    read_directions,
    with_subspace,
    write_subspace,
)
from peftsearch.errors import BackboneError
from tests.tiny import outline

HERE = replace(outline("bert"), revision="sha256:0123456789abcdef")


@pytest.fixture
def prompts() -> torch.Tensor:
    return torch.randn(5, 2, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def file(prompts: torch.Tensor, tmp_path: Path) -> Path:
    write_subspace(tmp_path / "s.safetensors", principal_directions(prompts), HERE, ["a, seed 0", "b, seed 0"])
    return tmp_path / "s.safetensors"


def test_directions_are_those_of_the_covariance(prompts: torch.Tensor) -> None:
    """An oracle from outside: eigenvectors of the covariance."""
    found = principal_directions(prompts)
    flat = prompts.reshape(5, -1)
    values, vectors = torch.linalg.eigh(torch.cov(flat.T))
    assert found.basis.shape == (4, 2, 32)
    torch.testing.assert_close(found.scale**2, values.flip(0)[:4])
    same = found.basis.flatten(1) @ vectors.flip(1)[:, :4]
    torch.testing.assert_close(same.abs(), torch.eye(4), atol=1e-4, rtol=0)
    around = (prompts - found.mean).reshape(5, -1)
    torch.testing.assert_close((around @ found.basis.flatten(1).T) @ found.basis.flatten(1), around, atol=1e-4, rtol=0)
    assert torch.equal(principal_directions(prompts, 2).basis, found.basis[:2])


def test_too_few_prompts_are_refused(prompts: torch.Tensor) -> None:
    for few in (prompts[:1], prompts[:1].repeat(3, 1, 1)):
        with pytest.raises(BackboneError, match="at least two different tasks"):
            principal_directions(few)
    with pytest.raises(BackboneError, match="5 prompts have 4 directions, 5 are wanted"):
        principal_directions(prompts, 5)


def test_a_file_gives_back_its_tensors_and_facts(file: Path, prompts: torch.Tensor) -> None:
    subspace = with_subspace(HERE, file).subspace
    assert subspace is not None
    assert (subspace.length, subspace.n_directions) == (2, 4)
    assert torch.equal(read_directions(subspace).basis, principal_directions(prompts).basis)
    # The weights of an anatomy from a config alone are not known.
    assert with_subspace(outline("bert"), file).subspace == subspace


@pytest.mark.parametrize(
    ("backbone", "said"),
    [
        (replace(HERE, revision="sha256:fedcba9876543210"), "belongs to bert .*sha256:0123456789abcdef.*, not to bert"),
        (outline("gpt2"), r"not to gpt2 \(gpt2"),
        (outline("electra"), "width 16"),
        (outline("t5"), "two stacks"),
    ],
)
def test_a_file_of_another_model_is_refused(file: Path, backbone, said: str) -> None:
    with pytest.raises(BackboneError, match=said):
        with_subspace(backbone, file)


def broken(file: Path, facts=None, **tensors: torch.Tensor) -> None:
    facts = {"format": FORMAT, "model": "bert", "model_type": "bert"} if facts is None else facts
    save_file(load_file(file) | tensors, file, facts)


@pytest.mark.parametrize(
    ("tensors", "facts", "said"),
    [
        ({"mean": torch.zeros(3, 32)}, None, "do not belong together"),
        ({"scale": torch.ones(3)}, None, "do not belong together"),
        ({"basis": torch.ones(4, 2, 32)}, None, "not orthonormal"),
        ({"scale": torch.zeros(4)}, None, "not above 0"),
        ({"mean": torch.full((2, 32), float("nan"))}, None, "not finite"),
        ({"mean": torch.zeros(2, 32, dtype=torch.float64)}, None, "not float32"),
        ({"more": torch.zeros(1)}, None, "instead of mean, basis and scale"),
        ({}, {"format": "other"}, "format is 'other'"),
        ({}, {}, "format is 'None'"),
    ],
)
def test_a_damaged_file_is_refused(file: Path, tensors: dict[str, torch.Tensor], facts, said: str) -> None:
    broken(file, facts, **tensors)
    with pytest.raises(BackboneError, match=said) as refused:
        with_subspace(HERE, file)
    assert "\n" not in str(refused.value)


def test_what_is_no_safetensors_file_is_refused(file: Path) -> None:
    whole = file.read_bytes()
    for raw in (b"", b"no file", whole[:-1], whole[:20], b"\xff" * 64):
        file.write_bytes(raw)
        with pytest.raises(BackboneError, match="not a readable safetensors file"):
            with_subspace(HERE, file)
    with pytest.raises(BackboneError, match="No such file"):
        with_subspace(HERE, file.with_name("nowhere"))


def test_a_file_that_cannot_be_written_is_one_line(prompts: torch.Tensor, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("")
    with pytest.raises(BackboneError, match="cannot be written"):
        write_subspace(tmp_path / "f" / "s", principal_directions(prompts), HERE, [])
