"""Detect the anatomy of a loaded transformers model from its structure.

A stack is a `ModuleList` of same-class blocks that contain attention. Roles come from the field's usual attribute
names, and all widths are checked against each other: inconsistent models are refused, nothing is guessed. A block that
several layers share (ALBERT) is one block, which a forward pass uses several times. Left out: mixtures of experts, and
fused projections whose order is not known for the family.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any, Literal

from torch import nn

from peftsearch.backbone.anatomy import Attention, Backbone, Block, Norm, Projection, Stack
from peftsearch.backbone.auto import continues_texts, fills_masks
from peftsearch.backbone.feedforward import find_ffn
from peftsearch.backbone.maps import (
    check_widths,
    count_params,
    find_words,
    is_linear,
    join,
    list_head,
    read_norm,
    read_projection,
    unreadable,
    uses_interface,
    widths,
    writes_tokens,
)


def _synonyms(*stems: str) -> frozenset[str]:
    forms = ("{}", "{}_proj", "{}_lin", "{}_linear", "w{}", "w_{}", "to_{}", "linear_{}", "{}_layer")
    return frozenset(form.format(stem) for stem in stems for form in forms)


ROLES = {"query": _synonyms("query", "q"), "key": _synonyms("key", "k"), "value": _synonyms("value", "v")}
OUTPUT = _synonyms("output", "out", "o") | {"dense", "c_proj", "proj"}
FUSED = frozenset({"c_attn", "qkv_proj", "wqkv", "qkv", "query_key_value", "in_proj"})
PER_HEAD = frozenset({"bloom", "deberta", "gpt_neox", "persimmon"})
"""Families whose fused map holds query, key and value of the first head, then of the second, and so on."""
MIXED = frozenset({"codegen", "gpt_bigcode"})
"""Families with another order in a fused map; `query_key_value` counts as another order in families not in PER_HEAD."""
SHARED = frozenset({"albert"})
"""Families whose layers share blocks: each group of layers runs the blocks of one entry repeatedly."""


def detect(model: nn.Module, name: str = "", revision: str = "") -> Backbone:
    """Read the anatomy of a loaded model.

    Args:
        model: The model, with or without a task head.
        name: The user's name for the model.
        revision: Commit hash or fingerprint.

    Raises:
        BackboneError: The model is not understood; the message gives the expected and the actual structure.
    """
    base = model.base_model if isinstance(getattr(model, "base_model", None), nn.Module) else model
    assert isinstance(base, nn.Module)
    return Backbone(
        name=name,
        model_type=str(getattr(getattr(model, "config", None), "model_type", type(model).__name__.lower())),
        n_params=count_params(model if writes_tokens(model) else base),
        stacks=_read_stacks(model, _find_stacks(model)),
        revision=revision,
        head=list_head(model, base),
    )


def _find_stacks(model: nn.Module) -> list[str]:
    found: list[str] = []
    for path, module in model.named_modules():
        if not isinstance(module, nn.ModuleList) or any(path.startswith(f"{outer}.") for outer in found):
            continue
        if len({type(child) for child in module}) == 1 and any(_attention_paths(child) for child in module):
            found.append(path)
    lists = [path for path, module in model.named_modules() if isinstance(module, nn.ModuleList)]
    if not found:
        raise unreadable(
            model,
            "a ModuleList of same-class blocks with query, key and value projections",
            f"the module lists {', '.join(lists)}" if lists else "no module list",
        )
    if len(found) > 2 or (len(found) == 2 and {_side(path) for path in found} != {"encoder", "decoder"}):
        raise unreadable(model, "one stack of blocks, or an encoder and a decoder", ", ".join(found))
    return found


def _side(path: str) -> Literal["encoder", "decoder"] | None:
    if "decoder" in path:
        return "decoder"
    return "encoder" if "encoder" in path else None


def _read_stacks(model: nn.Module, paths: list[str]) -> tuple[Stack, ...]:
    stacks = []
    for path in paths:
        side = _side(path) if len(paths) == 2 else None
        uses = _list_uses(model, path)
        blocks = tuple(
            replace(_read_block(model, block, i, side), n_uses=n) for i, (block, n) in enumerate(uses.items())
        )
        stacks.append(Stack(name=side or ("decoder" if blocks[0].attention.causal else "encoder"), blocks=blocks))
    layers = getattr(getattr(model, "config", None), "num_hidden_layers", None)
    known = _family(model) in SHARED
    if len(stacks) == 1 and not known and isinstance(layers, int) and layers != len(stacks[0].blocks):
        raise unreadable(
            model,
            f"{layers} blocks, as its config says",
            f"{len(stacks[0].blocks)} in {paths[0]}",
            f"the only supported model whose layers share blocks is {', '.join(sorted(SHARED))}; choose another model",
        )
    if len(stacks) == 1 and (words := find_words(model, stacks[0].blocks[-1].path)) is not None:
        stacks = [replace(stacks[0], blocks=tuple(replace(block, words=words) for block in stacks[0].blocks))]
    return tuple(sorted(stacks, key=lambda stack: stack.name, reverse=True))  # encoder before decoder


def _list_uses(model: nn.Module, path: str) -> dict[str, int]:
    """The paths of a stack's blocks, and the number of times that a forward pass uses each."""
    size = len(list(model.get_submodule(path).children()))
    if _family(model) not in SHARED:
        return {f"{path}.{i}": 1 for i in range(size)}
    config: Any = model.config
    # The formula of AlbertTransformer: layer i runs all blocks of this group.
    groups = Counter(int(i / (config.num_hidden_layers / size)) for i in range(config.num_hidden_layers))
    return {
        f"{path}.{group}.albert_layers.{i}": n
        for group, n in sorted(groups.items())
        for i in range(config.inner_group_num)
    }


def _family(model: nn.Module) -> str:
    return str(getattr(getattr(model, "config", None), "model_type", ""))


def _read_block(model: nn.Module, path: str, index: int, side: Literal["encoder", "decoder"] | None) -> Block:
    block = model.get_submodule(path)
    local = _attention_paths(block)
    crossing = [p for p in local if any(mark in p.lower() for mark in ("cross", "encoder_attn", "encdec"))]
    own = [p for p in local if p not in crossing]
    if len(own) != 1 or len(crossing) > 1:
        raise unreadable(model, f"one self-attention in {path}", ", ".join(local) or _list_linear(block))
    attention = _read_attention(model, path, own[0], causal=None)
    cross = _read_attention(model, path, crossing[0], causal=False) if crossing else None
    hidden = attention.query.d_in
    ffn = find_ffn(model, path, hidden, taken=_attention_maps(model, [a for a in (attention, cross) if a]))
    for faults in (check_widths(each, ffn, hidden) for each in (attention, cross) if each):
        if faults:
            raise unreadable(model, f"widths that fit together in {path}", "; ".join(faults))
    return Block(
        stack=side or ("decoder" if attention.causal else "encoder"),
        index=index,
        path=path,
        hidden_size=hidden,
        attention=attention,
        ffn=ffn,
        norms=_find_norms(model, path, hidden),
        cross_attention=cross,
    )


def _attention_maps(model: nn.Module, attentions: list[Attention]) -> set[str]:
    """Paths of the linear maps that belong to attention, including those for relative positions (DeBERTa)."""
    taken = {p.path for a in attentions for p in (a.query, a.key, a.value, a.output)}
    for attention in attentions:
        children = model.get_submodule(attention.path).named_children()
        taken |= {
            join(attention.path, name) for name, child in children if name.startswith("pos_") and is_linear(child)
        }
    return taken


def _attention_paths(block: nn.Module) -> list[str]:
    """Paths, relative to the block, of the modules that hold the query, key and value maps or a fused one."""
    found = []
    for path, module in block.named_modules():
        names = {name.lower() for name, child in module.named_children() if is_linear(child)}
        if names & FUSED or all(names & role for role in ROLES.values()):
            found.append(path)
    return found


def _list_linear(module: nn.Module) -> str:
    maps = {path: widths(child) for path, child in module.named_modules() if is_linear(child)}
    return "the linear maps " + ", ".join(f"{path} {i}->{o}" for path, (i, o) in maps.items()) if maps else ""


def _read_attention(model: nn.Module, block: str, local: str, causal: bool | None) -> Attention:
    path = join(block, local)
    module = model.get_submodule(path)
    parts = {name.lower(): name for name, child in module.named_children() if is_linear(child)}
    fused = [parts[name] for name in sorted(FUSED & set(parts))]
    heads = _setting(model, module, "num_attention_heads", "num_heads", "n_heads", "n_head")
    if not heads:
        raise unreadable(model, f"the number of heads of {path} (num_attention_heads, num_heads)", "none of them")
    if fused:
        query, key, value = _split_fused(model, module, join(path, fused[0]), heads)
    else:
        found = [sorted(ROLES[role] & set(parts)) for role in ROLES]
        if any(len(names) != 1 for names in found):
            raise unreadable(model, f"one query, key and value map in {path}", _list_linear(module))
        query, key, value = (read_projection(model, join(path, parts[names[0]])) for names in found)
    head_dim = _head_dim(model, module) or query.d_out // heads
    return Attention(
        path=path,
        query=query,
        key=key,
        value=value,
        output=read_projection(model, _find_output(model, block, local)),
        n_heads=heads,
        n_kv_heads=key.d_out // head_dim,
        head_dim=head_dim,
        causal=_is_causal(model, module) if causal is None else causal,
        interface=uses_interface(model, module),
    )


def _split_fused(
    model: nn.Module, module: nn.Module, path: str, heads: int
) -> tuple[Projection, Projection, Projection]:
    """Query, key and value of a fused map, laid out one after the other or head by head."""
    family = _family(model)
    d_in, d_module = widths(model.get_submodule(path))
    head_dim = _head_dim(model, module) or d_in // heads
    d_query = heads * head_dim
    if family in PER_HEAD:
        if d_module != 3 * d_query:
            raise unreadable(model, f"{path} to hold query, key and value of {d_query}", f"{d_module} outputs")
        query, key, value = (read_projection(model, path, i * head_dim, d_query, heads) for i in range(3))
        return query, key, value
    if path.endswith("query_key_value") or family in MIXED:
        reason = "such a model is not supported, as a slice could mix query, key and value"
        raise unreadable(model, "query, key and value in an order that is known", f"{path} of {family}", reason)
    d_kv, rest = divmod(d_module - d_query, 2)
    if rest or d_kv <= 0:
        raise unreadable(model, f"{path} to hold a query of {d_query} and equal key and value", f"{d_module} outputs")
    slices = ((0, d_query), (d_query, d_kv), (d_query + d_kv, d_kv))
    query, key, value = (read_projection(model, path, start, width) for start, width in slices)
    return query, key, value


def _find_output(model: nn.Module, block: str, local: str) -> str:
    """Path of the attention's output map: in the attention module, or next to it (BERT's `attention.output.dense`)."""
    for region in dict.fromkeys((local, local.rpartition(".")[0])):
        if region == "" and local != "":
            break  # one level up is the whole block, with the feed-forward network
        root = model.get_submodule(join(block, region))
        found = [
            path
            for path, module in root.named_modules()
            if is_linear(module) and path.rpartition(".")[2].lower() in OUTPUT
        ]
        if len(found) == 1:
            return join(block, region, found[0])
    raise unreadable(
        model,
        f"one output map of the attention {join(block, local)}",
        _list_linear(model.get_submodule(join(block, local))),
    )


def _find_norms(model: nn.Module, block: str, hidden: int) -> tuple[Norm, ...]:
    paths = [path for path, _ in model.get_submodule(block).named_modules() if path]
    norms = [norm for path in paths if (norm := read_norm(model, join(block, path))) is not None]
    return tuple(norm for norm in norms if norm.width == hidden)


def _setting(model: nn.Module, module: nn.Module, *names: str) -> int | None:
    """The first positive integer attribute of these names on the module, or else on the model's config."""
    for holder in (module, getattr(model, "config", None)):
        for name in names:
            value: Any = getattr(holder, name, None)
            if isinstance(value, int) and not isinstance(value, bool) and value > 0:
                return value
    return None


def _head_dim(model: nn.Module, module: nn.Module) -> int | None:
    return _setting(model, module, "head_dim", "attention_head_size", "head_size", "key_value_proj_dim")


def _is_causal(model: nn.Module, module: nn.Module) -> bool:
    """Whether attention is causal, by its own flag, else the config, else transformers' model classes of the family."""
    if isinstance(flag := getattr(module, "is_causal", None), bool):
        return flag
    family = _family(model)
    is_decoder = bool(getattr(getattr(model, "config", None), "is_decoder", False))
    return is_decoder or (continues_texts(family) and not fills_masks(family))
