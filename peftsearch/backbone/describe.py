"""The anatomy of a model from a user's description, where detection fails.

A description is a mapping or a small YAML file with dotted paths: `blocks`, `base` and `head` start from the model's
root, the others from a block. A map inside a fused one is written as a slice: `attn.qkv[0:64]`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from itertools import takewhile
from os import PathLike
from pathlib import Path
from typing import Any

from torch import nn

from peftsearch.backbone.anatomy import Attention, Backbone, Block, FeedForward, Norm, Projection, Stack
from peftsearch.backbone.maps import (
    check_widths,
    count_params,
    find_words,
    is_linear,
    join,
    list_head,
    read_norm,
    read_projection,
    uses_interface,
    widths,
    writes_tokens,
)
from peftsearch.errors import BackboneError
from peftsearch.fields import Fields, at_least, list_of

_PATH = re.compile(r"([\w.]+)(?:\[(\d+):(\d+)\])?")


def describe(
    model: nn.Module, description: Mapping[str, Any] | str | PathLike[str], name: str = "", revision: str = ""
) -> Backbone:
    """Read a model's anatomy with the help of a description.

    Args:
        model: Any module with a list of blocks.
        description: The mapping, or the path of a YAML file that holds it.
        name: The user's name for the model.
        revision: Commit hash or fingerprint.

    Raises:
        ConfigError: The description is malformed.
        BackboneError: The description does not fit the model.
    """
    where = "anatomy"
    if not isinstance(description, Mapping):
        from peftsearch.files import read_yaml

        where = str(description)
        description = read_yaml(Path(description))
    return _Reader(model, where, _parse(where, description)).read(name, revision)


def _parse(where: str, data: Mapping[str, Any]) -> dict[str, Any]:
    """Take the known keys out of a description."""
    fields = Fields(where, data)
    paths = list_of(str)
    parsed: dict[str, Any] = {key: fields.take(key, str) for key in ("blocks", "query", "key", "value", "output")}
    parsed["ffn_in"] = fields.take("ffn_in", (str, list), check=lambda v: paths([v] if isinstance(v, str) else v))
    parsed["ffn_out"] = fields.take("ffn_out", str)
    parsed["norms"] = fields.take("norms", list, [], lambda v: paths(v) if v else None)
    parsed["heads"] = fields.take("heads", int, check=at_least(1))
    parsed["kv_heads"] = fields.take("kv_heads", int, None, at_least(1))
    parsed["head_dim"] = fields.take("head_dim", int, None, at_least(1))
    parsed["causal"] = fields.take("causal", bool, False)
    parsed["head"] = fields.take("head", list, None, lambda v: paths(v) if v else None)
    parsed["base"] = fields.take("base", str, None)
    fields.finish()
    return parsed


class _Reader:
    """Read a model by a description, collecting all faults."""

    def __init__(self, model: nn.Module, where: str, given: dict[str, Any]) -> None:
        self._model = model
        self._where = where
        self._given = given
        self._faults: list[str] = []

    def read(self, name: str, revision: str) -> Backbone:
        """Read the whole anatomy, or raise all faults at once."""
        given, model = self._given, self._model
        blocks = self._module("blocks", given["blocks"])
        base = self._module("base", given["base"]) if given["base"] is not None else getattr(model, "base_model", model)
        base = base if isinstance(base, nn.Module) else model
        heads = {path: self._module("head", path) for path in given["head"] or ()}
        if blocks is not None and not (isinstance(blocks, nn.ModuleList | nn.Sequential) and len(blocks)):
            self._faults.append(f"blocks: {given['blocks']} is a {type(blocks).__name__}, not a list of blocks")
        self._raise_faults()
        assert blocks is not None
        read = [self._block(f"{given['blocks']}.{i}", i) for i in range(len(list(blocks.children())))]
        self._raise_faults()
        whole = model if writes_tokens(model) else base
        side = "decoder" if given["causal"] else "encoder"
        found = [block for block in read if block is not None]
        words = find_words(model, found[-1].path)
        return Backbone(
            name=name,
            model_type=str(getattr(getattr(model, "config", None), "model_type", type(model).__name__.lower())),
            n_params=count_params(whole, without=[module for module in heads.values() if module is not None]),
            stacks=(Stack(name=side, blocks=tuple(replace(block, words=words) for block in found)),),  # type: ignore[arg-type]  # one of the two literals
            revision=revision,
            head=tuple(heads) if given["head"] is not None else list_head(model, base),
        )

    def _raise_faults(self) -> None:
        if self._faults:
            more = f"; and {len(self._faults) - 8} more" if len(self._faults) > 8 else ""
            raise BackboneError(f"{self._where}: {'; '.join(self._faults[:8])}{more}; correct these paths or numbers")

    def _module(self, key: str, path: str) -> nn.Module | None:
        """Look up a module; on failure name the modules at the point where the path breaks."""
        module = self._model
        for i, part in enumerate(parts := path.split(".")):
            children = dict(module.named_children())
            if part not in children:
                at = ".".join(parts[:i]) or "the model"
                names = ", ".join(list(children)[:12]) or "no modules"
                self._faults.append(f"{key}: no {part!r} in {at} (it has {names})")
                return None
            module = children[part]
        return module

    def _map(self, key: str, block: str, text: str) -> Projection | None:
        """Read a linear map, or the slice of one."""
        match = _PATH.fullmatch(text)
        if match is None:
            self._faults.append(f"{key}: {text!r} is not a dotted path, or one with a slice like qkv[0:64]")
            return None
        path = join(block, match[1])
        module = self._module(key, path)
        if module is None:
            return None
        if not is_linear(module):
            self._faults.append(f"{key}: {path} is a {type(module).__name__}, not a linear map")
            return None
        if match[2] is None:
            return read_projection(self._model, path)
        start, end, width = int(match[2]), int(match[3]), widths(module)[1]
        if not start < end <= width:
            self._faults.append(f"{key}: {text} is not a slice of {width} outputs")
            return None
        return read_projection(self._model, path, start, end - start)

    def _block(self, path: str, index: int) -> Block | None:
        given = self._given
        before = len(self._faults)
        inputs = [given["ffn_in"]] if isinstance(given["ffn_in"], str) else given["ffn_in"]
        q, k, v, o = (self._map(key, path, given[key]) for key in ("query", "key", "value", "output"))
        into, back = [self._map("ffn_in", path, text) for text in inputs], self._map("ffn_out", path, given["ffn_out"])
        norms = [self._norm(path, text) for text in given["norms"]]
        if len(self._faults) > before:
            return None
        assert q is not None and k is not None and v is not None and o is not None and back is not None  # noqa: PT018  # one condition: no faults, all found
        attention = self._attention(q, k, v, o)
        ffn = FeedForward(inputs=tuple(m for m in into if m is not None), output=back)
        self._faults += [f"{path}: {fault}" for fault in check_widths(attention, ffn, q.d_in)]
        return Block(
            stack="decoder" if given["causal"] else "encoder",
            index=index,
            path=path,
            hidden_size=q.d_in,
            attention=attention,
            ffn=ffn,
            norms=tuple(norm for norm in norms if norm is not None),
        )

    def _attention(self, q: Projection, k: Projection, v: Projection, o: Projection) -> Attention:
        heads: int = self._given["heads"]
        head_dim: int = self._given["head_dim"] or max(1, q.d_out // heads)
        parents = [projection.path.split(".")[:-1] for projection in (q, k, v)]
        levels = takewhile(lambda parts: len(set(parts)) == 1, zip(*parents, strict=False))
        path = ".".join(parts[0] for parts in levels)  # the deepest module that holds all three
        return Attention(
            path=path,
            query=q,
            key=k,
            value=v,
            output=o,
            n_heads=heads,
            n_kv_heads=self._given["kv_heads"] or k.d_out // head_dim,
            head_dim=head_dim,
            causal=self._given["causal"],
            interface=uses_interface(self._model, self._model.get_submodule(path)),
        )

    def _norm(self, block: str, text: str) -> Norm | None:
        path = join(block, text)
        module = self._module("norms", path)
        norm = read_norm(self._model, path) if module is not None else None
        if module is not None and norm is None:
            self._faults.append(f"norms: {path} is a {type(module).__name__} without a gain, not a norm")
        return norm
