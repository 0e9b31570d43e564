"""A subspace of prompts in a file: a mean prompt and orthonormal directions, learned from prompts of many tasks.

A file belongs to one model: it holds the fingerprint of its weights. `with_subspace` puts its facts into an anatomy,
from which the method `ipt` takes its sizes; `read_directions` reads the tensors when the method is attached.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from peftsearch.backbone.anatomy import Backbone, Subspace
from peftsearch.errors import BackboneError, one_line
from peftsearch.files import write_state

FORMAT = "peftsearch-subspace/1"
MAKE = "make one with `peftsearch subspace`"
MAX_BYTES = 1 << 30
"""Largest file: a thousand directions of 64 tokens of width 4096 in float32."""
_TOLERANCE = 1e-3
"""Largest deviation of a product of two directions from 1 or 0."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Directions:
    """The tensors of a subspace."""

    mean: torch.Tensor
    """Mean prompt `(l, e)`."""
    basis: torch.Tensor
    """Orthonormal directions `(d, l, e)`, by falling variance."""
    scale: torch.Tensor
    """Standard deviation of the source prompts along each direction `(d,)`."""


def principal_directions(prompts: torch.Tensor, n_directions: int | None = None) -> Directions:
    """Compute the mean and the principal directions of prompts.

    Args:
        prompts: Prompts of n tasks `(n, l, e)`.
        n_directions: Number of directions to keep; None keeps all, of which n prompts have at most n - 1.

    Raises:
        BackboneError: There are fewer than two prompts, they are all equal, or they have fewer directions.
    """
    n, length, width = prompts.shape
    mean = prompts.double().mean(0)
    flat = (prompts.double() - mean).reshape(n, -1)
    _, sizes, rows = torch.linalg.svd(flat, full_matrices=False)
    rank = min(n - 1, int((sizes > 1e-6 * sizes[0]).sum())) if n > 1 and float(sizes[0]) > 0 else 0
    if rank < 1:
        raise BackboneError(f"subspace: {n} prompts have no direction in common; give at least two different tasks")
    if n_directions is not None and n_directions > rank:
        raise BackboneError(f"subspace: {n} prompts have {rank} directions, {n_directions} are wanted; give more tasks")
    kept = rank if n_directions is None else n_directions
    return Directions(
        mean=mean.float(),
        basis=rows[:kept].reshape(kept, length, width).float(),
        scale=(sizes[:kept] / (n - 1) ** 0.5).float(),
    )


def write_subspace(path: Path, directions: Directions, backbone: Backbone, sources: Sequence[str]) -> None:
    """Write a subspace, whole or not at all.

    Args:
        path: The file to write.
        directions: Its tensors.
        backbone: The model that the prompts were trained on.
        sources: Names of the tasks that the prompts were trained on.

    Raises:
        BackboneError: The file cannot be written.
    """
    tensors = {"mean": directions.mean, "basis": directions.basis, "scale": directions.scale}
    facts = {
        "format": FORMAT,
        "model": backbone.name,
        "model_type": backbone.model_type,
        "fingerprint": backbone.revision,
        "length": str(directions.mean.shape[0]),
        "sources": "\n".join(sources),
    }
    packed = save({name: value.detach().cpu().float().contiguous() for name, value in tensors.items()}, facts)
    try:
        write_state(packed, path)
    except OSError as error:
        raise BackboneError(f"{path}: cannot be written: {error.strerror or error}") from error


def with_subspace(backbone: Backbone, path: str | PathLike[str]) -> Backbone:
    """Put the facts of a subspace into a model's anatomy, so that `ipt` can act on it.

    Args:
        backbone: The anatomy.
        path: A file of `write_subspace`.

    Raises:
        BackboneError: The file is missing or damaged, or belongs to another model.
    """
    where = Path(path).expanduser().resolve()
    raw = _read(where)
    directions, facts = _unpack(where, raw)
    length, width = directions.mean.shape
    words = backbone.blocks[0].words
    if words is None:
        raise BackboneError(f"{where}: {backbone.name} has two stacks or reads no words; give a model of one stack")
    there, here = facts.get("fingerprint", ""), backbone.revision
    if facts.get("model_type") != backbone.model_type or width != words.width or (there and here and there != here):
        raise BackboneError(
            f"{where}: belongs to {facts.get('model')} ({facts.get('model_type')}, width {width}, {there or 'unknown'})"
            f", not to {backbone.name} ({backbone.model_type}, width {words.width}, {here or 'unknown'}); {MAKE}"
        )
    known = Subspace(path=str(where), digest=_digest(raw), length=length, n_directions=len(directions.basis))
    stacks = tuple(
        replace(
            stack,
            blocks=tuple(
                block if block.words is None else replace(block, words=replace(block.words, subspace=known))
                for block in stack.blocks
            ),
        )
        for stack in backbone.stacks
    )
    return replace(backbone, stacks=stacks)


def read_directions(subspace: Subspace) -> Directions:
    """Read the tensors of a subspace.

    Raises:
        BackboneError: The file is missing or damaged, or has changed since its facts were read.
    """
    where = Path(subspace.path)
    raw = _read(where)
    if _digest(raw) != subspace.digest:
        told = f"has changed ({_digest(raw)}, was {subspace.digest})"
        raise BackboneError(f"{where}: {told}; give the file that was used")
    return _unpack(where, raw)[0]


def _read(where: Path) -> bytes:
    try:
        if where.stat().st_size > MAX_BYTES:
            raise BackboneError(f"{where}: is larger than {MAX_BYTES:,} bytes; {MAKE}")
        return where.read_bytes()
    except OSError as error:
        raise BackboneError(f"{where}: {error.strerror or error}; {MAKE}") from error


def _digest(raw: bytes) -> str:
    return f"sha256:{hashlib.sha256(raw).hexdigest()[:16]}"


def _unpack(where: Path, raw: bytes) -> tuple[Directions, dict[str, str]]:
    """Check and read a file's content.

    Raises:
        BackboneError: It is damaged or of another format.
    """
    try:
        tensors, facts = load(raw), _metadata(raw)
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BackboneError(f"{where}: is not a readable safetensors file ({one_line(error, 80)}); {MAKE}") from error
    if facts.get("format") != FORMAT:
        found = one_line(facts.get("format"), 60)
        raise BackboneError(f"{where}: format is {found!r}, this version reads {FORMAT!r}; {MAKE}")
    fault = _fault(tensors)
    if fault is not None:
        raise BackboneError(f"{where}: is damaged: {fault}; {MAKE}")
    return Directions(mean=tensors["mean"], basis=tensors["basis"], scale=tensors["scale"]), facts


def _metadata(raw: bytes) -> dict[str, str]:
    """The metadata of a safetensors file: eight bytes with the size of a JSON header, then the header."""
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    return {str(key): str(value) for key, value in header.get("__metadata__", {}).items()}


def _fault(tensors: dict[str, torch.Tensor]) -> str | None:
    """Say what is wrong with the tensors of a file; None if nothing is."""
    if set(tensors) != {"mean", "basis", "scale"}:
        return f"it holds {', '.join(sorted(tensors)) or 'nothing'} instead of mean, basis and scale"
    mean, basis, scale = tensors["mean"], tensors["basis"], tensors["scale"]
    if mean.dim() != 2 or 0 in mean.shape or basis.shape[1:] != mean.shape or basis.shape[:1] != scale.shape:
        return f"its shapes {tuple(mean.shape)}, {tuple(basis.shape)} and {tuple(scale.shape)} do not belong together"
    if not 1 <= len(basis) <= mean.numel() or any(value.dtype != torch.float32 for value in tensors.values()):
        return f"it has {len(basis)} directions of {mean.numel()} values, or is not float32"
    if not all(bool(torch.isfinite(value).all()) for value in tensors.values()) or not bool((scale > 0).all()):
        return "a value is not finite, or a scale is not above 0"
    rows = basis.flatten(1)
    if float((rows @ rows.T - torch.eye(len(rows))).abs().max()) > _TOLERANCE:
        return "its directions are not orthonormal"
    return None
