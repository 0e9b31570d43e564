"""Descriptions by hand: a module that is not of transformers, and what is wrong with a description."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from peftsearch.backbone.describe import describe
from peftsearch.backbone.detect import detect
from peftsearch.backbone.load import reset_head
from peftsearch.errors import BackboneError, ConfigError
from tests.tiny import FAMILIES


class OwnBlock(nn.Module):
    """Attention over 4 heads of 4, query, key and value in one map, and a feed-forward network of 24."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(16, 48)
        self.merge = nn.Linear(16, 16, bias=False)
        self.grow = nn.Linear(16, 24)
        self.shrink = nn.Linear(24, 16)
        self.before = nn.LayerNorm(16)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (t.unflatten(-1, (4, 4)).transpose(1, 2) for t in self.mix(self.before(x)).split(16, -1))
        x = x + self.merge(nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        result: Tensor = x + self.shrink(self.grow(x).relu())
        return result


class OwnEncoder(nn.Module):
    """Embedding, two blocks, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(10, 16)
        self.body = nn.ModuleList([OwnBlock(), OwnBlock()])
        self.top = nn.Sequential(nn.Dropout(0.0), nn.Linear(16, 2))

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        for block in self.body:
            x = block(x)
        result: Tensor = self.top(x.mean(1))
        return result


OWN: dict[str, Any] = {
    "blocks": "body", "query": "mix[0:16]", "key": "mix[16:32]", "value": "mix[32:48]", "output": "merge",
    "ffn_in": "grow", "ffn_out": "shrink", "norms": ["before"], "heads": 4, "head": ["top"],
}  # fmt: skip
BERT: dict[str, Any] = {
    "blocks": "bert.encoder.layer", "query": "attention.self.query", "key": "attention.self.key",
    "value": "attention.self.value", "output": "attention.output.dense", "ffn_in": ["intermediate.dense"],
    "ffn_out": "output.dense", "norms": ["attention.output.LayerNorm", "output.LayerNorm"], "heads": 4,
}  # fmt: skip
LLAMA: dict[str, Any] = {
    "blocks": "model.layers", "query": "self_attn.q_proj", "key": "self_attn.k_proj", "value": "self_attn.v_proj",
    "output": "self_attn.o_proj", "ffn_in": ["mlp.gate_proj", "mlp.up_proj"], "ffn_out": "mlp.down_proj",
    "norms": ["input_layernorm", "post_attention_layernorm"], "heads": 4, "kv_heads": 2, "causal": True,
}  # fmt: skip


def test_own_module() -> None:
    model = OwnEncoder()
    backbone = describe(model, OWN, "own")
    per_block = (16 * 48 + 48) + 16 * 16 + (16 * 24 + 24) + (24 * 16 + 16) + 2 * 16
    assert (backbone.n_params, backbone.head, backbone.model_type) == (160 + 2 * per_block, ("top",), "ownencoder")
    assert [stack.name for stack in backbone.stacks] == ["encoder"]
    block = backbone.blocks[1]
    a = block.attention
    assert (a.path, a.n_kv_heads, a.head_dim, a.interface, a.causal) == ("body.1", 4, 4, False, False)
    assert [(p.start, p.d_out, p.d_module, p.fused) for p in (a.query, a.key, a.value)] == [
        (0, 16, 48, True), (16, 16, 48, True), (32, 16, 48, True),
    ]  # fmt: skip
    assert (a.output.bias, block.ffn.d_ff, block.norms[0].path) == (False, 24, "body.1.before")


@pytest.mark.parametrize(
    ("family", "description"), [("bert", BERT), ("qwen3", LLAMA | {"head_dim": 16}), ("llama", LLAMA)]
)
def test_equals_detection(family: str, description: dict[str, Any]) -> None:
    model = FAMILIES[family]()
    assert describe(model, description, "x", "r") == detect(model, "x", "r")


def test_file(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text("\n".join(f"{key}: {value!r}" for key, value in OWN.items()))
    assert describe(OwnEncoder(), path) == describe(OwnEncoder(), OWN)
    path.write_text("blocks: &a body\nquery: *a\n")
    with pytest.raises(ConfigError, match="anchors"):
        describe(OwnEncoder(), path)
    with pytest.raises(ConfigError, match="No such file"):
        describe(OwnEncoder(), tmp_path / "absent.yaml")


def test_all_faults_of_form_at_once() -> None:
    broken = {**OWN, "quary": "x", "heads": 0, "ffn_in": [], "causal": "yes"}
    del broken["query"]
    with pytest.raises(ConfigError) as caught:
        describe(OwnEncoder(), broken)
    for part in (
        "'query' is missing",
        "did you mean 'query'",
        "'heads' must be at least 1",
        "'ffn_in'",
        "'causal' must",
    ):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"blocks": "boddy"}, r"blocks: no 'boddy' in the model \(it has embed, body, top\)"),
        ({"blocks": "embed"}, "embed is a Embedding, not a list of blocks"),
        ({"query": "attn.q"}, r"query: no 'attn' in body.0 \(it has mix, merge"),
        ({"query": "mix[0:99]"}, r"query: mix\[0:99\] is not a slice of 48 outputs"),
        ({"query": "mix[a]"}, "not a dotted path"),
        ({"output": "before"}, "output: body.0.before is a LayerNorm, not a linear map"),
        ({"norms": ["merge"]}, "norms: body.0.merge is a Linear without a gain"),
        ({"key": "mix[16:24]"}, "body.0: value output 16 instead of 8"),
        ({"heads": 3}, "body.0: query output 16 instead of 15"),
        ({"ffn_in": "shrink"}, "ffn input 0 24 instead of 16"),
        ({"head": ["tip"]}, "head: no 'tip'"),
    ],
)
def test_what_does_not_fit_the_model(change: dict[str, Any], message: str) -> None:
    with pytest.raises(BackboneError, match=f"anatomy: .*{message}"):
        describe(OwnEncoder(), OWN | change)


def test_all_misfits_at_once() -> None:
    with pytest.raises(BackboneError, match=r"query: no 'a' .*; output: no 'b' .*correct these"):
        describe(OwnEncoder(), OWN | {"query": "a", "output": "b"})


def test_head_of_an_own_module_is_reset() -> None:
    model = OwnEncoder()
    backbone = describe(model, OWN)
    before = model.top[1].weight.clone()
    reset_head(model, backbone, 1)
    first = model.top[1].weight.clone()
    reset_head(model, backbone, 1)
    assert torch.equal(first, model.top[1].weight)
    assert not torch.equal(first, before)
