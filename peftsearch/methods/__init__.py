"""The table of methods, and their variants on other maps.

`lora:ffn` is LoRA on the maps of the feed-forward network, `lora:query,key` on these two; every method with targets has
such variants. The name alone says what a variant is, so that any process can make it.

To add a method, write its file here, the file of its layers in `layers/`, and one line in the table. The table needs
neither torch nor transformers: a method imports its layers when it is attached.

Order matters where methods act on the same module. The order of the table is the order in which hooks are
registered, whatever the order in an architecture: a projection's output passes through DoRA, whose norm is that of the
pretrained weight, then what adds to the weight (LoRA to SAID), then the bias delta, then the scales of IA3, then the
serial adapters one after the other (AdaMix directly behind `adapter_pfeiffer`, which it becomes), then the parallel
adapter and KronA_res, which read the network's input, then the parts of MAM and UniPELT, then the ladder. LayerNorm
shares its modules with BitFit only, and the two commute. Prefixes change the attention function alone; prefixes of
several methods are stacked, the last outermost. A prompt is put in front of the input and removed after all of these.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

from peftsearch.errors import MethodError, one_line, unknown_name
from peftsearch.methods.adamix import AdaMix
from peftsearch.methods.adapter import Adapter
from peftsearch.methods.adapter_parallel import ParallelAdapter
from peftsearch.methods.adapter_sparse import SparseAdapter
from peftsearch.methods.bitfit import BitFit
from peftsearch.methods.compacter import Compacter
from peftsearch.methods.diffpruning import DiffPruning
from peftsearch.methods.dora import DoRA
from peftsearch.methods.far import Far
from peftsearch.methods.fishmask import FishMask
from peftsearch.methods.ia3 import IA3
from peftsearch.methods.ipt import IPT
from peftsearch.methods.krona import KronA
from peftsearch.methods.krona_res import KronARes
from peftsearch.methods.ladder import Ladder
from peftsearch.methods.layernorm import LayerNorm
from peftsearch.methods.lora import LoRA
from peftsearch.methods.lora_shared import SharedLoRA
from peftsearch.methods.mam import MixAndMatch
from peftsearch.methods.method import Method
from peftsearch.methods.phm import PHM
from peftsearch.methods.prefix import Prefix
from peftsearch.methods.prefix_mlp import PrefixMLP
from peftsearch.methods.projections import name_targets, parse_targets
from peftsearch.methods.prompt import Prompt
from peftsearch.methods.ptuning import PTuning
from peftsearch.methods.said import Said
from peftsearch.methods.unipelt import UniPelt

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        DoRA(),
        LoRA(),
        SharedLoRA(),
        SharedLoRA(name="lora_shared_b", shared="b"),
        KronA(),
        FishMask(),
        DiffPruning(),
        Far(),
        Said(),
        BitFit(),
        LayerNorm(),
        IA3(),
        Adapter(),
        Adapter(name="adapter_pfeiffer", paper="2005.00247", places_in_block=("ffn",)),
        AdaMix(),
        PHM(),
        Compacter(),
        Compacter(name="compacter_pp", paper="2106.04647, sec. 4.3", places_in_block=("ffn",), lr_scale=4.3),
        SparseAdapter(),
        ParallelAdapter(),
        KronARes(),
        Prefix(),
        PrefixMLP(),
        MixAndMatch(),
        UniPelt(),
        Ladder(),
        Prompt(),
        PTuning(),
        IPT(),
    )
}


_RANKS = {name: rank for rank, name in enumerate(METHODS)}


def get_method(name: str) -> Method:
    """Look a method or a variant up by its name.

    Raises:
        MethodError: There is no such method; the message names the nearest.
    """
    return METHODS[name] if name in METHODS else _variant(name)


@lru_cache(maxsize=256)
def _variant(name: str) -> Method:
    base, _, text = name.partition(":")
    if base not in METHODS:
        raise MethodError(unknown_name("method", base, METHODS))
    method: Any = METHODS[base]
    if not hasattr(method, "targets"):
        able = ", ".join(other for other, each in METHODS.items() if hasattr(each, "targets"))
        raise MethodError(f"{one_line(name, 60)}: {base} has no targets to choose; methods that have: {able}")
    targets = parse_targets(one_line(name, 60), text)
    wanted = variant_name(base, targets)
    if wanted != name:
        raise MethodError(f"{one_line(name, 60)}: write it as {wanted}, so that a method has one name")
    found: Method = replace(method, name=name, targets=targets)
    return found


def variant_name(base: str, targets: tuple[str, ...]) -> str:
    """Name of a method of the table on other maps: `lora:ffn`; its own name on the maps that it has by default.

    Raises:
        MethodError: The method is unknown.
    """
    usual = getattr(get_method(base), "targets", None)
    return base if usual is not None and set(usual) == set(targets) else f"{base}:{name_targets(targets)}"


def base_name(name: str) -> str:
    """Name of the method of the table that a variant is made from."""
    return name.partition(":")[0]


def rank_of(name: str) -> tuple[int, str]:
    """Place of a method in the order of the table; variants follow their method, by name.

    Raises:
        MethodError: The method is unknown.
    """
    base = base_name(name)
    if base not in _RANKS:
        raise MethodError(unknown_name("method", base, METHODS))
    return _RANKS[base], name


__all__ = ["METHODS", "Method", "base_name", "get_method", "rank_of", "variant_name"]
